"""PyMySQL against vtgate: text protocol over TCP and over the unix socket."""

import datetime
import decimal
import sys

import pymysql

port, socket = int(sys.argv[1]), sys.argv[2]


def connect(**options):
    return pymysql.connect(host="127.0.0.1", port=port, user="any", password="thing", database="commerce", **options)


connection = connect(charset="utf8mb4", autocommit=True)
cursor = connection.cursor()
cursor.execute("drop table if exists kinds")
cursor.execute(
    """create table kinds (id bigint primary key auto_increment, small tinyint unsigned, amount decimal(20,4), ratio double,
    text_ varchar(200) character set utf8mb4, bytes_ longblob, day date, moment datetime(6), span time, flag bit(8), nothing int)"""
)
row = (
    200,
    decimal.Decimal("12345678901234.5678"),
    0.25,
    "naïve 🐬 'quoted' \\ back",
    bytes(range(256)),
    datetime.date(2019, 12, 31),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 678901),
    datetime.timedelta(hours=26, minutes=3),
    b"\x05",
    None,
)
cursor.execute(
    "insert into kinds(small,amount,ratio,text_,bytes_,day,moment,span,flag,nothing) values(%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)", row
)
first = cursor.lastrowid
assert first == connection.insert_id() == 1, first
cursor.execute("select small,amount,ratio,text_,bytes_,day,moment,span,flag,nothing from kinds where id=%s", (first,))
assert cursor.fetchone() == row, cursor._rows

# A transaction that is rolled back leaves nothing; an affected-rows count is that of mysqld.
connection.autocommit(False)
cursor.execute("update kinds set small = 7 where id = %s", (first,))
assert cursor.rowcount == 1
connection.rollback()
cursor.execute("select small from kinds")
assert cursor.fetchall() == ((200,),)
connection.commit()
connection.autocommit(True)

# Found rows instead of changed rows, as the client asked at its handshake.
found = connect(client_flag=pymysql.constants.CLIENT.FOUND_ROWS, autocommit=True)
with found.cursor() as other:
    other.execute("update kinds set small = 200")
    assert other.rowcount == 1, other.rowcount
found.close()

# A cell larger than one packet of the protocol, there and back.
big = b"x" * (17 << 20)
cursor.execute("insert into kinds(bytes_) values(%s)", (big,))
cursor.execute("select bytes_ from kinds where bytes_ is not null and length(bytes_) > 1000")
assert cursor.fetchone()[0] == big

# Many rows at once.
cursor.executemany("insert into kinds(small) values(%s)", [(n % 250,) for n in range(3000)])
cursor.execute("select count(*) from kinds")
assert cursor.fetchone() == (3002,)

# Errors keep their numbers; the connection lives on.
for sql, errno in [
    ("insert into kinds(id) values(1)", 1062),
    ("select nope from kinds", 1054),
    ("selec 1", 1105),
]:
    try:
        cursor.execute(sql)
        raise AssertionError(f"{sql} did not fail")
    except pymysql.MySQLError as error:
        assert error.args[0] == errno, (sql, error)
cursor.execute("select 1")
assert cursor.fetchone() == (1,)

connection.select_db("commerce@replica")
cursor.execute("select 2")
assert cursor.fetchone() == (2,)
connection.ping(reconnect=False)
connection.close()

local = pymysql.connect(unix_socket=socket, user="any", database="commerce", autocommit=True)
with local.cursor() as other:
    other.execute("drop table kinds")
local.close()
print("ok")
