"""Rows and values that nobody looks at on their way: read through vtgate they are what mysqld itself answers, by the text
and by the binary protocol, small and large, from one shard and from several; written by an INSERT of many rows they are
what the same rows are one by one.

Arguments: vtgate's port, the sockets of the mysqlds of commerce/0, customer/-80 and customer/80-."""

import sys

import mysql.connector
import pymysql
from mysql.connector.network import NetworkBrokerPlain

port, sockets = int(sys.argv[1]), sys.argv[2:]
FRAME = 2**24 - 1
COLUMNS = "id, tiny, wide, ratio, amount, word, bytes_, day, moment, span, some_bits, choice, nothing"


def joined(recv):
    """Reads packets of several frames as one, which this library does for text only. It shall not look for more of them."""

    def receive(*args, **kwargs):
        packet = part = recv(*args, **kwargs)
        while len(part) == FRAME + 4:
            part = recv(*args, **kwargs)
            packet = b"\0\0\0\0" + packet[4:] + part[4:]
        return packet

    return receive


NetworkBrokerPlain.recv = joined(NetworkBrokerPlain.recv)


def gate(keyspace):
    return mysql.connector.connect(host="127.0.0.1", port=port, user="any", database=keyspace, use_pure=True, ssl_disabled=True,
                                   autocommit=True)


def plain(cell):
    return bytes(cell) if isinstance(cell, bytearray) else cell


def fetch(connection, sql, prepared=False):
    """Rows with numbers, dates and so on taken from the bytes that came."""
    cursor = connection.cursor(prepared=prepared)
    cursor.execute(sql)
    rows = [tuple(plain(cell) for cell in row) for row in cursor.fetchall()]
    cursor.close()
    return rows


def run(connection, sql):
    cursor = connection.cursor()
    cursor.execute(sql)
    count = cursor.rowcount
    cursor.close()
    return count


def mysqld(place, database):
    return mysql.connector.connect(unix_socket=sockets[place], user="vt_dba", database=database, use_pure=True, autocommit=True)


class Place:
    """A keyspace through vtgate, and its databases."""

    def __init__(self, keyspace, places):
        self.gate = gate(keyspace)
        self.mysqlds = [mysqld(place, "vt_" + keyspace) for place in places]

    def direct(self, sql, prepared=False):
        return [row for server in self.mysqlds for row in fetch(server, sql, prepared)]

    def same(self, sql):
        for prepared in (False, True):
            if prepared and len(self.mysqlds) > 1:
                # Prepared with a LIMIT, for which rows are gathered, and these are no types for that.
                sql = sql.replace("some_bits, choice, ", "")
            got, want = fetch(self.gate, sql, prepared), self.direct(sql, prepared)
            # Of several shards the order is nobody's.
            if len(self.mysqlds) > 1:
                got, want = sorted(got, key=lambda row: row[0]), sorted(want, key=lambda row: row[0])
            if got != want:
                lengths = [[len(c) if isinstance(c, (bytes, str)) else c for c in row] for row in got[:3]]
                sys.exit(f"{sql[:200]} (prepared: {prepared}): {len(got)} rows instead of {len(want)}, first {lengths}")

    def written(self):
        return sorted(self.direct(f"select {COLUMNS} from cells"))


ROWS = [
    r"(1, -5, 18446744073709551615, 1.5, 12345678901.12345, 'été 漢字 😀', x'00ff27', '2000-02-29', '2001-02-03 04:05:06.789012', "
    r"'-12:30:00.5', b'1010', 'a', null)",
    r"(2, 127, 0, -0.125, -0.00001, '', '', null, null, null, null, 'b', 7)",
    r"(3, null, 0x10, 1e100, .5, 'it''s \'quoted\' \"twice\" \\ and \n \0 \Z \% \_', 'a\0b', '1999-12-31', '2030-01-01', '00:00:01', b'0', null, "
    r"-2147483648)",
    r"(4, true, 1, -1.5e-10, 2, '(), :a ? -- # /* */ `x`', N'n', 0, 0, 0, 0, 2, default)",
]


def padded(rows):
    """With so many more rows that the statement counts as one of many."""
    return rows + [f"({i}, 1, 2, 3.5, 4, '{'p' * 100}', 'b', '2020-01-01', '2020-01-01 00:00:00', '1:00', 1, 'a', {i})"
                   for i in range(100, 140)]


def bulk(place, rows, head="insert into cells(" + COLUMNS + ") values ", tail=""):
    text = head + ",".join(padded(rows)) + tail
    assert len(text) > 4096
    return run(place.gate, text)


def reading(place):
    run(place.gate, "delete from cells")
    run(place.gate, "set sql_mode = ''")
    for row in ROWS:
        run(place.gate, f"insert into cells({COLUMNS}) values {row}")
    for sql in (
        f"select {COLUMNS} from cells",
        "select id, nothing, word from cells where id = 2",
        "select id from cells where id = 77",
        "select id, null, '', nothing from cells",
        "select id, repeat(word, 100), bytes_, repeat(bytes_, 20) from cells",
    ):
        place.same(sql)
    # Many rows, more than buffers and frames of the transport hold.
    for first in range(1000, 7000, 2000):
        values = ",".join(f"({id}, {id % 128}, {id}, {id}.5, {id}.25, '{'w' * (id % 300)}', null, '2020-01-01', null, null, 1, 'a', "
                          f"{id if id % 3 else 'null'})" for id in range(first, first + 2000))
        assert run(place.gate, f"insert into cells({COLUMNS}) values {values}") == 2000
    place.same(f"select {COLUMNS} from cells")
    # Rows of one byte less than a full packet, of exactly one and of one byte more, as text (2 bytes are the id, 4 the length
    # of the cell) and as binary (2 bytes head, 8 the id); then of several packets.
    if place is commerce:
        for size in (FRAME - 7, FRAME - 6, FRAME - 5, FRAME - 15, FRAME - 14, FRAME - 13, 2 * FRAME + 100):
            place.same(f"select id, repeat('x', {size}) from cells where id = 2")
    place.same("select id, repeat('y', 17000000), nothing, repeat('z', 10) from cells where id <= 2")


def writing(place):
    run(place.gate, "set sql_mode = ''")
    run(place.gate, "delete from cells")
    for row in padded(ROWS):
        run(place.gate, f"insert into cells({COLUMNS}) values {row}")
    want = place.written()
    assert len(want) == 44, len(want)
    run(place.gate, "delete from cells")
    assert bulk(place, ROWS) == 44
    got = place.written()
    assert got == want, [pair for pair in zip(got, want) if pair[0] != pair[1]][:3]
    # Comments around and between, another spelling, what stands behind the rows.
    run(place.gate, "delete from cells")
    assert bulk(place, ROWS, f"/* one */ INSERT /* two */ IGNORE INTO `cells` ({COLUMNS})\nVALUES\n", " /* three */") == 44
    assert place.written() == want
    assert bulk(place, ROWS, tail=" on duplicate key update word = concat('again ', values(word)), nothing = 5") == 88
    seen = place.direct("select id, word, nothing from cells where id in (2, 120) order by id")
    assert sorted(seen) == [(2, "again ", 5), (120, "again " + "p" * 100, 5)], seen
    if place is commerce:
        assert bulk(place, ROWS, f"replace into cells({COLUMNS}) values ") == 88
        assert place.written() == want
    # Modes that change what a quote or a backslash means do not get as far as mysqld.
    run(place.gate, "delete from cells")
    run(place.gate, "set sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
    assert bulk(place, ROWS) == 44
    assert place.written() == want
    run(place.gate, "set sql_mode = ''")
    # Among literals also what is more than a literal.
    run(place.gate, "delete from cells")
    mixed = [ROWS[0], ROWS[1].replace("''", '"double"', 1), ROWS[2].replace("1e100", "1 + 1"), ROWS[3].replace("true", "length('abc')")]
    assert bulk(place, mixed) == 44
    seen = sorted(place.direct("select id, tiny, ratio, word from cells where id between 2 and 4"))
    assert [row[:3] for row in seen] == [(2, 127, -0.125), (3, None, 2.0), (4, 3, -1.5e-10)] and seen[0][3] == "double", seen
    # A row that is there already: the whole statement fails, and nothing of it stays.
    before = place.written()
    try:
        bulk(place, [ROWS[0].replace("(1,", "(50,"), ROWS[1]])
        sys.exit("a duplicate was accepted")
    except mysql.connector.Error as error:
        assert error.errno == 1062, error
    assert place.written() == before
    # Inside a transaction, undone.
    run(place.gate, "begin")
    run(place.gate, "delete from cells")
    assert bulk(place, ROWS) == 44
    run(place.gate, "rollback")
    assert place.written() == before
    run(place.gate, "delete from cells")


def over_shards(place):
    """Rows that go to the client as they are, beside rows that the gate looks at."""
    assert run(place.gate, "insert into cells(id, nothing, word) values " + ",".join(f"({i}, {i % 7}, 'w{i}')" for i in range(1, 301))) == 300
    every = [(i, i % 7, f"w{i}") for i in range(1, 301)]
    sql = "select id, nothing, word from cells"
    for before, after in (("begin", "commit"), ("set autocommit = 0", "set autocommit = 1"), ("set @a = 1", "set @a = null")):
        run(place.gate, before)
        for prepared in (False, True):
            assert sorted(fetch(place.gate, sql, prepared)) == every, before
            assert sorted(fetch(place.gate, sql + " where id in (3, 4, 5, 6, 7, 8)", prepared)) == every[2:8], before
            assert fetch(place.gate, sql + " order by id", prepared) == every, before
        run(place.gate, after)
    run(place.gate, "set sql_select_limit = 5")
    assert len(fetch(place.gate, sql)) == 5
    run(place.gate, "set sql_select_limit = default")
    assert run(place.gate, "insert into cells(id, nothing, word) select id + 1000, nothing, word from cells where nothing = 3") == 43
    assert fetch(place.gate, "select count(*) from cells where id > 1000") == [(43,)]
    assert fetch(place.gate, "select found_rows()") == [(1,)]
    run(place.gate, "delete from cells")


def other_bytes(place):
    """A text that is not UTF-8 arrives byte by byte."""
    connection = pymysql.connect(host="127.0.0.1", port=port, user="any", database="commerce", charset="latin1", autocommit=True)
    cursor = connection.cursor()
    cursor.execute("insert into cells(id, bytes_) values " + ",".join(f"({i}, 'été {'x' * 80}')" for i in range(60)))
    assert cursor.rowcount == 60
    connection.close()
    assert place.direct("select bytes_ from cells where id = 7") == [("été ".encode("latin1") + b"x" * 80,)]
    run(place.gate, "delete from cells")


def sequence(place):
    """Ids that the gate fills in, and where their rows went."""
    text = "insert into cells(tiny, word) values " + ",".join(f"({i % 100}, '{i} {'s' * 50}')" for i in range(100))
    assert run(place.gate, text) == 100
    text = "insert into cells(id, tiny, word) values " + ",".join(f"(null, {i % 100}, '{i} {'s' * 50}')" for i in range(100, 200))
    assert run(place.gate, text) == 100
    rows = sorted(place.direct("select id, word from cells"))
    assert [word.split()[0] for _, word in rows] == [str(i) for i in range(200)], rows[:3]
    assert rows[0][0] >= 1000000 and rows[-1][0] == rows[0][0] + 199, (rows[0], rows[-1])
    # Each where its id belongs: read back by id, a row is looked for on one shard only.
    for id, word in rows[::20]:
        assert fetch(place.gate, f"select word from cells where id = {id}") == [(word,)]
    assert all(fetch(server, "select count(*) from cells") > [(20,)] for server in place.mysqlds)
    run(place.gate, "delete from cells")


commerce, customer = Place("commerce", [0]), Place("customer", [1, 2])
for place in (commerce, customer):
    reading(place)
    writing(place)
    over_shards(place)
other_bytes(commerce)
sequence(customer)
