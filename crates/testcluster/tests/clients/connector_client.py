"""mysql-connector-python against vtgate: prepared statements, which use the binary protocol."""

import datetime
import decimal
import sys

import mysql.connector

port = int(sys.argv[1])
connection = mysql.connector.connect(
    host="127.0.0.1", port=port, user="any", password="thing", database="commerce", use_pure=True, ssl_disabled=True, autocommit=True
)
cursor = connection.cursor()
cursor.execute("drop table if exists prepared")
cursor.execute(
    """create table prepared (id bigint primary key, tiny tinyint, wide bigint unsigned, ratio double, amount decimal(12,2),
    word varchar(50), bytes_ varbinary(50), day date, moment datetime(6), span time, nothing int)"""
)
prepared = connection.cursor(prepared=True)
rows = [
    (1, -5, 2**64 - 1, 1.5, decimal.Decimal("10.25"), "été", b"\x00\xff'", datetime.date(2000, 2, 29),
     datetime.datetime(2001, 2, 3, 4, 5, 6, 7), datetime.timedelta(hours=-12, minutes=-30), None),
    (2, 5, 0, -0.125, decimal.Decimal("-0.01"), "", b"", datetime.date(1999, 12, 31),
     datetime.datetime(2030, 1, 1), datetime.timedelta(seconds=1), 7),
]
for row in rows:
    prepared.execute("insert into prepared values(?,?,?,?,?,?,?,?,?,?,?)", row)
    assert prepared.rowcount == 1
for row in rows:
    # The second execution reuses the statement.
    prepared.execute("select * from prepared where id = ?", (row[0],))
    seen = prepared.fetchall()
    assert len(seen) == 1, seen
    seen = tuple(bytes(v) if isinstance(v, bytearray) else v for v in seen[0])
    assert seen == row, (seen, row)
prepared.execute("select id from prepared where word = ? or bytes_ = ? order by id", ("été", b""))
assert prepared.fetchall() == [(1,), (2,)]
prepared.execute("update prepared set nothing = ? where nothing is null", (9,))
assert prepared.rowcount == 1
# Numbers far from one are no DECIMALs, which would end at 65 digits.
for ratio in (1e100, -1e100, 1e-100, 1.7976931348623157e308, 2.2250738585072014e-308, 1e15, 0.1, 1e-5, 123456789012345.0):
    prepared.execute("update prepared set ratio = ? where id = 1", (ratio,))
    prepared.execute("select id, ratio from prepared where ratio = ?", (ratio,))
    seen = prepared.fetchall()
    assert seen == [(1, ratio)], (seen, ratio)
prepared.close()

connection.start_transaction()
cursor.execute("delete from prepared")
connection.rollback()
cursor.execute("select count(*) from prepared")
assert cursor.fetchone() == (2,)
connection.reset_session()
cursor = connection.cursor()
cursor.execute("use commerce")
cursor.execute("select database()")
assert cursor.fetchone() == ("commerce",)

# Two statements in one text bring two results.
if hasattr(cursor, "fetchsets"):
    cursor.execute("select 1; select 2, 3", map_results=True)
    sets = [rows for _, rows in cursor.fetchsets()]
else:  # before version 9.2
    sets = [result.fetchall() for result in cursor.execute("select 1; select 2, 3", multi=True)]
assert sets == [[(1,)], [(2, 3)]], sets
cursor.execute("drop table prepared")
connection.close()
print("ok")
