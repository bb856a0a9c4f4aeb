#!/bin/bash
# Brings up etcd, vtctld, one unsharded keyspace with three tablets, and vtgate.

set -e

source ./env.sh

CELL=zone1 ./etcd-up.sh
CELL=zone1 ./vtctld-up.sh
CELL=zone1 KEYSPACE=commerce UID_BASE=100 ./vttablet-up.sh

./lvtctl.sh InitShardMaster -force commerce/0 zone1-100
./lvtctl.sh ApplySchema -sql-file create_commerce_schema.sql commerce
./lvtctl.sh ApplyVSchema -vschema_file vschema_commerce_initial.json commerce

CELL=zone1 ./vtgate-up.sh
