"""Prepared SELECTs with ORDER BY and LIMIT over shards: the same rows as from the unsharded keyspace, by the binary
protocol. Argument: vtgate's port."""

import sys

import mysql.connector


def gate(keyspace):
    return mysql.connector.connect(host="127.0.0.1", port=int(sys.argv[1]), user="any", database=keyspace, use_pure=True,
                                   ssl_disabled=True, autocommit=True)


def fetch(connection, sql, values):
    cursor = connection.cursor(prepared=True)
    cursor.execute(sql, values)
    rows = cursor.fetchall()
    cursor.close()
    return rows


sharded, unsharded = gate("customer"), gate("commerce")
for sql, values in [
    ("select id, choice, some, bits from v order by choice, id limit ?", (9,)),
    ("select id, amount, ratio, single, day, moment, stamp from v where tiny > ? order by ci desc, id limit ?, ?", (-2, 3, 20)),
    ("select id, latin, bin from v order by latin, bin, id limit ? offset ?", (10, 5)),
    ("select id, choice from v order by id limit ?", (0,)),
]:
    want = fetch(unsharded, sql, values)
    for _ in range(2):
        got = fetch(sharded, sql, values)
        assert got == want, f"{sql}\n got: {got}\nwant: {want}"
for count in (0, 1, 7):
    rows = fetch(sharded, "select choice, place, bits from v limit ?", (count,))
    assert len(rows) == count, rows
