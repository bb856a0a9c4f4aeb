-- INSERT of one row whose id the server gives: AUTO_INCREMENT at mysqld, a sequence at vtgate.

function prepare()
  local con = sysbench.sql.driver():connect()
  con:query("CREATE TABLE IF NOT EXISTS numbered(id BIGINT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c VARCHAR(120) NOT NULL)")
end

function thread_init()
  con = sysbench.sql.driver():connect()
  filler = string.rep("0123456789", 10)
end

function event()
  con:query(string.format("INSERT INTO numbered(k, c) VALUES (%d, '%s')", sysbench.rand.uniform(1, 9000000), filler))
end

function cleanup()
  sysbench.sql.driver():connect():query("DROP TABLE IF EXISTS numbered")
end
