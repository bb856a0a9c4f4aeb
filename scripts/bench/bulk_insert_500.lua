-- INSERT statements of 500 rows each into a table without secondary keys.

function prepare()
  local con = sysbench.sql.driver():connect()
  con:query("CREATE TABLE IF NOT EXISTS bulk(id BIGINT PRIMARY KEY, k INT NOT NULL, c VARCHAR(120) NOT NULL)")
end

function thread_init()
  con = sysbench.sql.driver():connect()
  filler = string.rep("0123456789", 10)
end

function event()
  local rows = {}
  for i = 1, 500 do
    rows[i] = string.format("(%d, %d, '%s')", sysbench.rand.uniform(1, 9000000000), i, filler)
  end
  con:query("INSERT IGNORE INTO bulk(id, k, c) VALUES " .. table.concat(rows, ","))
end

function cleanup()
  sysbench.sql.driver():connect():query("DROP TABLE IF EXISTS bulk")
end
