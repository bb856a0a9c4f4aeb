-- One SELECT of 10,000 rows of about 190 bytes.

function thread_init()
  con = sysbench.sql.driver():connect()
end

function event()
  local result = con:query("SELECT id, k, c, pad FROM sbtest1 LIMIT 10000")
end
