"""What drivers and ORMs send when they connect and look at a schema: each statement has to be answered.

Their versions differ; these are the statements of recent ones, and of those that take the server's word for being MySQL 5.7.
"""

import sys

import pymysql

port = int(sys.argv[1])

STATEMENTS = {
    'Django': [
        "SET SQL_AUTO_IS_NULL = 0",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SELECT VERSION(), @@sql_mode, @@default_storage_engine, @@sql_auto_is_null, @@lower_case_table_names, CONVERT_TZ('2001-01-01 01:00:00', 'UTC', 'UTC') IS NOT NULL",
        "SELECT @@SQL_AUTO_IS_NULL",
        "SHOW FULL TABLES",
        "SELECT table_name, table_type, table_comment FROM information_schema.tables WHERE table_schema = DATABASE()",
        "SET foreign_key_checks=0",
        "SET foreign_key_checks=1",
        "SELECT engine FROM information_schema.engines WHERE support = 'DEFAULT'",
        "SHOW INDEX FROM `customer`",
        "SAVEPOINT `s1_x1`",
        "SELECT kc.`constraint_name`, kc.`column_name`, kc.`referenced_table_name`, kc.`referenced_column_name`, c.`constraint_type` FROM information_schema.key_column_usage AS kc, information_schema.table_constraints AS c WHERE kc.table_schema = DATABASE() AND c.table_schema = kc.table_schema AND c.constraint_name = kc.constraint_name AND c.constraint_type != 'CHECK' AND kc.table_name = 'customer'",
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale, extra, column_default, collation_name FROM information_schema.columns WHERE table_name = 'customer' AND table_schema = DATABASE()",
        "SELECT 1 AS `a` FROM `customer` WHERE `customer`.`email` = 'x' LIMIT 1",
        "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = DATABASE()",
    ],
    'SQLAlchemy': [
        "SELECT DATABASE()",
        "SELECT @@tx_isolation",
        "SELECT @@transaction_isolation",
        "SELECT @@session.tx_isolation",
        "SELECT @@session.transaction_isolation",
        "SELECT @@global.tx_isolation",
        "SELECT @@tx_read_only",
        "SELECT @@session.tx_read_only",
        "SELECT @@transaction_read_only",
        "SELECT @@sql_mode",
        "SELECT @@lower_case_table_names",
        "SHOW VARIABLES LIKE 'sql_mode'",
        "SHOW VARIABLES LIKE 'lower_case_table_names'",
        "SELECT CAST('test plain returns' AS CHAR(60)) AS anon_1",
        "SELECT CAST('test collated returns' AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin AS anon_1",
        "DESCRIBE `commerce`.`customer`",
        "DESCRIBE `customer`",
        "SHOW FULL TABLES FROM `commerce`",
        "SHOW CREATE TABLE `customer`",
        "SHOW CREATE TABLE `commerce`.`customer`",
        "ROLLBACK",
        "show collation where `Charset` = 'utf8mb4' and `Collation` = 'utf8mb4_bin'",
        "SELECT * FROM information_schema.tables WHERE table_schema='commerce' AND table_name='customer'",
        "SHOW TABLES LIKE 'cust%'",
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
    ],
    'Connector/J and Hibernate': [
        "/* mysql-connector-j-8 */SELECT  @@session.auto_increment_increment AS auto_increment_increment, @@character_set_client AS character_set_client, @@character_set_connection AS character_set_connection, @@character_set_results AS character_set_results, @@character_set_server AS character_set_server, @@collation_server AS collation_server, @@collation_connection AS collation_connection, @@init_connect AS init_connect, @@interactive_timeout AS interactive_timeout, @@license AS license, @@lower_case_table_names AS lower_case_table_names, @@max_allowed_packet AS max_allowed_packet, @@net_write_timeout AS net_write_timeout, @@performance_schema AS performance_schema, @@query_cache_size AS query_cache_size, @@query_cache_type AS query_cache_type, @@sql_mode AS sql_mode, @@system_time_zone AS system_time_zone, @@time_zone AS time_zone, @@tx_isolation AS transaction_isolation, @@wait_timeout AS wait_timeout",
        "/* mysql-connector-j-8 */SELECT @@session.auto_increment_increment AS auto_increment_increment, @@transaction_isolation AS transaction_isolation, @@performance_schema AS performance_schema",
        "SHOW WARNINGS",
        "SET NAMES utf8mb4",
        "SET character_set_results = NULL",
        "SET autocommit=1",
        "SET sql_mode='STRICT_TRANS_TABLES'",
        "select @@session.tx_read_only",
        "select @@session.transaction_read_only",
        "SET SESSION TRANSACTION READ WRITE",
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION TRANSACTION READ WRITE",
        "set session transaction isolation level repeatable read",
        "SHOW VARIABLES WHERE Variable_name ='language' OR Variable_name = 'net_write_timeout' OR Variable_name = 'tx_isolation' OR Variable_name='transaction_isolation'",
        "SELECT @@session.auto_increment_increment",
        "/* ping */ SELECT 1",
        "SHOW FULL COLUMNS FROM `customer` FROM `commerce` LIKE '%'",
        "SHOW FULL TABLES FROM `commerce` LIKE '%'",
        "SHOW KEYS FROM `customer` FROM `commerce`",
        "SHOW CREATE TABLE `commerce`.`customer`",
        "SELECT TABLE_SCHEMA, NULL, TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'commerce'",
    ],
    'go-sql-driver and GORM': [
        "SELECT @@max_allowed_packet",
        "SET NAMES utf8mb4",
        "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci",
        "START TRANSACTION",
        "COMMIT",
        "SET time_zone='+00:00'",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "START TRANSACTION READ ONLY",
        "ROLLBACK",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "ROLLBACK",
        "SELECT VERSION()",
        "SELECT DATABASE()",
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'commerce' AND table_name = 'customer' AND table_type = 'BASE TABLE'",
        "SELECT SCHEMA_NAME from Information_schema.SCHEMATA where SCHEMA_NAME LIKE 'commerce%' ORDER BY SCHEMA_NAME='commerce' DESC limit 1",
    ],
    'MariaDB Connector/J and command-line clients': [
        "set autocommit=1, sql_mode = concat(@@sql_mode,',STRICT_TRANS_TABLES')",
        "SELECT @@max_allowed_packet, @@system_time_zone, @@time_zone, @@auto_increment_increment",
        "SELECT @@version_comment LIMIT 1",
        "select @@version_comment limit 1",
        "select @@version, @@version_comment",
        "select USER(), CURRENT_USER()",
    ],
    'Ruby on Rails': [
        "SET NAMES utf8mb4, @@SESSION.sql_mode = CONCAT(CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), ',NO_AUTO_VALUE_ON_ZERO'), @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
        "SET  @@SESSION.sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'),  @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
        "SELECT VERSION()",
        "SHOW VARIABLES LIKE 'character_set_database'",
        "SHOW FULL FIELDS FROM `customer`",
        "SHOW KEYS FROM `customer`",
        "SHOW TABLES",
        "SELECT column_name FROM information_schema.statistics WHERE index_name = 'PRIMARY' AND table_schema = database() AND table_name = 'customer' ORDER BY seq_in_index",
        "SELECT table_comment FROM information_schema.tables WHERE table_schema = database() AND table_name = 'customer'",
        "SELECT fk.referenced_table_name AS 'to_table' FROM information_schema.referential_constraints rc JOIN information_schema.key_column_usage fk USING (constraint_schema, constraint_name) WHERE fk.referenced_column_name IS NOT NULL AND fk.table_schema = database() AND fk.table_name = 'customer' AND rc.constraint_schema = database()",
    ],
    'PDO and Laravel': [
        "SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci",
        "set session sql_mode='ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
        "use `commerce`",
        "set names 'utf8mb4' collate 'utf8mb4_unicode_ci'",
        "select * from information_schema.tables where table_schema = 'commerce' and table_name = 'migrations' and table_type = 'BASE TABLE'",
        "SET time_zone = '+00:00'",
        "select @@sql_mode as mode",
    ],
    'Connector/NET and MySqlConnector': [
        "SELECT CONNECTION_ID(), VERSION()",
        "SHOW VARIABLES",
        "SHOW COLLATION",
        "SET character_set_results=NULL",
        "SELECT TIMEDIFF(NOW(), UTC_TIMESTAMP())",
        "SHOW SESSION VARIABLES LIKE 'lower_case_table_names'",
        "SHOW SESSION STATUS LIKE 'Ssl_cipher'",
        "SHOW GLOBAL STATUS LIKE 'Uptime'",
        "SHOW STATUS",
        "SHOW GLOBAL VARIABLES LIKE 'version%'",
    ],
}

failed = []
for client, statements in STATEMENTS.items():
    connection = pymysql.connect(host="127.0.0.1", port=port, user="any", password="thing", database="commerce", autocommit=True)
    cursor = connection.cursor()
    for sql in statements:
        try:
            cursor.execute(sql)
            cursor.fetchall()
        except pymysql.MySQLError as error:
            failed.append(f"{client}: {sql}: {error}")
    connection.close()
assert not failed, "\n".join(failed)

# Columns keep the names that were asked for, whatever this mysqld calls the variable.
connection = pymysql.connect(host="127.0.0.1", port=port, user="any", database="commerce")
cursor = connection.cursor(pymysql.cursors.DictCursor)
cursor.execute("select @@tx_isolation, @@transaction_isolation as level, @@session.tx_read_only")
row = cursor.fetchone()
assert row == {"@@tx_isolation": "REPEATABLE-READ", "level": "REPEATABLE-READ", "@@session.tx_read_only": 0}, row

# What was set is what is read, and what a transaction has.
cursor.execute("set session transaction isolation level read committed")
cursor.execute("select @@tx_isolation, @@transaction_isolation as level, @@global.tx_isolation as standard")
row = cursor.fetchone()
assert row == {"@@tx_isolation": "READ-COMMITTED", "level": "READ-COMMITTED", "standard": "REPEATABLE-READ"}, row
cursor.execute("set session transaction_isolation = 'REPEATABLE-READ', session tx_read_only = 1")
cursor.execute("select @@session.transaction_isolation as level, @@transaction_read_only as read_only")
row = cursor.fetchone()
assert row == {"level": "REPEATABLE-READ", "read_only": 1}, row

# A session that is read only refuses writes, outside of transactions too.
for setting in ("set session transaction read only", "set session tx_read_only = 1", "set session transaction_read_only = on"):
    cursor.execute("set session transaction read write")
    cursor.execute(setting)
    for autocommit in (True, False):
        connection.autocommit(autocommit)
        try:
            cursor.execute("insert into product values ('read', 'only', 1)")
            raise AssertionError(f"{setting}: a write passed, autocommit {autocommit}")
        except pymysql.MySQLError as error:
            assert error.args[0] == 1792, (setting, error)
        connection.rollback()
print("ok")
