#!/bin/bash
# Brings up the tablets of customer and copies the schema of the tables that will move there.

set -e

source ./env.sh

CELL=zone1 KEYSPACE=customer UID_BASE=200 ./vttablet-up.sh

./lvtctl.sh InitShardMaster -force customer/0 zone1-200
./lvtctl.sh CopySchemaShard -tables customer,corder commerce/0 customer/0
./lvtctl.sh ApplyVSchema -vschema_file vschema_commerce_vsplit.json commerce
./lvtctl.sh ApplyVSchema -vschema_file vschema_customer_vsplit.json customer
