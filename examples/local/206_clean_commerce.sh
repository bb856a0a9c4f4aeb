#!/bin/bash
# Drops the tables that moved from commerce and lifts their denial there.

set -e

source ./env.sh

./lvtctl.sh ApplySchema -sql-file drop_commerce_tables.sql commerce
for tablet_type in rdonly replica master; do
  ./lvtctl.sh SetShardTabletControl -blacklisted_tables=customer,corder -remove commerce/0 $tablet_type
done
