//! Cells, their topology servers, and aliases that group cells.

use std::collections::BTreeMap;

use vtproto::topodata::{CellInfo, CellsAlias};

use crate::{
    error::{Result, TopoError},
    names::check_name,
    paths::{self, CELLS_ALIASES_DIR, CELLS_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, Update, read, update_record},
};

/// Whether a cell is meant by a list of cells; the empty list means all cells.
pub fn in_cell_list<S: AsRef<str>>(cell: &str, cells: &[S]) -> bool {
    cells.is_empty() || cells.iter().any(|one| one.as_ref() == cell)
}

/// Both lists together; "all cells" (the empty list) when either is that.
pub(crate) fn add_cells(left: &[String], right: &[String]) -> Vec<String> {
    if left.is_empty() || right.is_empty() {
        return Vec::new();
    }
    let mut cells = left.to_vec();
    for cell in right {
        if !cells.contains(cell) {
            cells.push(cell.clone());
        }
    }
    cells
}

/// What is left of `cells` (empty: of all known cells) without some (empty: all). `None` when nothing is.
pub(crate) fn remove_cells(cells: &[String], to_remove: &[String], all: &[String]) -> Option<Vec<String>> {
    let from = if cells.is_empty() { all } else { cells };
    let left: Vec<String> = from.iter().filter(|cell| !in_cell_list(cell, to_remove)).cloned().collect();
    (!left.is_empty()).then_some(left)
}

impl TopoServer {
    /// The names of all cells, sorted.
    pub async fn get_cell_info_names(&self) -> Result<Vec<String>> {
        self.names(self.global(), CELLS_DIR).await
    }

    /// The names of all cells, sorted.
    pub async fn get_known_cells(&self) -> Result<Vec<String>> {
        self.get_cell_info_names().await
    }

    /// The cells given; none given: all of them.
    pub(crate) async fn cells_or_all(&self, cells: &[String]) -> Result<Vec<String>> {
        if cells.is_empty() { self.get_cell_info_names().await } else { Ok(cells.to_vec()) }
    }

    pub async fn get_cell_info(&self, cell: &str) -> Result<CellInfo> {
        Ok(read(&**self.global(), &paths::cell_info_path(cell)).await?.0)
    }

    pub async fn create_cell_info(&self, cell: &str, info: &CellInfo) -> Result<()> {
        check_name("a cell", cell)?;
        let contents = record::encode(info, &UnknownFields::default());
        self.global().create(&paths::cell_info_path(cell), contents).await.map(drop)
    }

    /// Updates a cell, or creates it. Processes that already connected to the cell do not notice.
    pub async fn update_cell_info_fields<F>(&self, cell: &str, update: F) -> Result<()>
    where
        F: FnMut(&mut CellInfo) -> Result<Update>,
    {
        check_name("a cell", cell)?;
        update_record(&**self.global(), &paths::cell_info_path(cell), true, update).await.map(drop)
    }

    pub async fn delete_cell_info(&self, cell: &str) -> Result<()> {
        self.global().delete(&paths::cell_info_path(cell), None).await
    }

    /// Every alias of cells with its members, by name.
    pub async fn get_cells_aliases(&self) -> Result<BTreeMap<String, CellsAlias>> {
        let mut aliases = BTreeMap::new();
        for name in self.names(self.global(), CELLS_ALIASES_DIR).await? {
            let alias = self.get_cells_alias(&name).await?;
            aliases.insert(name, alias);
        }
        Ok(aliases)
    }

    pub async fn get_cells_alias(&self, alias: &str) -> Result<CellsAlias> {
        Ok(read(&**self.global(), &paths::cells_alias_path(alias)).await?.0)
    }

    /// The alias a cell belongs to, by name; `None` when it is in none.
    pub async fn find_cells_alias(&self, cell: &str) -> Result<Option<(String, CellsAlias)>> {
        let aliases = self.get_cells_aliases().await?;
        Ok(aliases.into_iter().find(|(_, alias)| alias.cells.iter().any(|member| member == cell)))
    }

    /// The name of the alias a cell belongs to; the cell itself when it is in none.
    pub async fn get_alias_by_cell(&self, cell: &str) -> Result<String> {
        Ok(self.find_cells_alias(cell).await?.map_or_else(|| cell.to_owned(), |(name, _)| name))
    }

    pub async fn create_cells_alias(&self, alias: &str, cells: &CellsAlias) -> Result<()> {
        check_name("an alias of cells", alias)?;
        let others = self.get_cells_aliases().await?;
        check_no_overlap(&others, alias, cells)?;
        let contents = record::encode(cells, &UnknownFields::default());
        self.global().create(&paths::cells_alias_path(alias), contents).await.map(drop)
    }

    pub async fn update_cells_alias<F>(&self, alias: &str, mut update: F) -> Result<()>
    where
        F: FnMut(&mut CellsAlias) -> Result<Update>,
    {
        check_name("an alias of cells", alias)?;
        let others = self.get_cells_aliases().await?;
        let checked = |cells: &mut CellsAlias| {
            let outcome = update(cells)?;
            check_no_overlap(&others, alias, cells)?;
            Ok(outcome)
        };
        update_record(&**self.global(), &paths::cells_alias_path(alias), false, checked).await.map(drop)
    }

    pub async fn delete_cells_alias(&self, alias: &str) -> Result<()> {
        self.global().delete(&paths::cells_alias_path(alias), None).await
    }

    /// The cells of a list separated by commas, aliases replaced by their members. Empty: all cells.
    pub async fn expand_cells(&self, cells: &str) -> Result<Vec<String>> {
        if cells.is_empty() {
            return self.get_cell_info_names().await;
        }
        let mut expanded = Vec::new();
        for cell in cells.split(',').map(str::trim).filter(|cell| !cell.is_empty()) {
            match self.get_cell_info(cell).await {
                Ok(_) => expanded.push(cell.to_owned()),
                Err(error @ TopoError::NoNode { .. }) => match self.get_cells_alias(cell).await {
                    Ok(alias) => expanded.extend(alias.cells),
                    Err(TopoError::NoNode { .. }) => return Err(error),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(expanded)
    }
}

fn check_no_overlap(others: &BTreeMap<String, CellsAlias>, name: &str, cells: &CellsAlias) -> Result<()> {
    for (other, members) in others.iter().filter(|(other, _)| *other != name) {
        if members.cells.iter().any(|cell| cells.cells.contains(cell)) {
            return Err(TopoError::other(format!(
                "cells alias {name} is not valid: cell set overlaps with existing alias {other}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&cell| cell.to_owned()).collect()
    }

    #[test]
    fn the_empty_list_is_every_cell() {
        assert_eq!(add_cells(&strings(&["c1"]), &strings(&["c2", "c1"])), strings(&["c1", "c2"]));
        assert_eq!(add_cells(&[], &strings(&["c2"])), Vec::<String>::new());
        assert_eq!(add_cells(&strings(&["c2"]), &[]), Vec::<String>::new());
        let all = strings(&["first", "second", "third"]);
        assert_eq!(remove_cells(&[], &strings(&["second"]), &all), Some(strings(&["first", "third"])));
        assert_eq!(remove_cells(&strings(&["first", "third"]), &strings(&["first", "third"]), &all), None);
        assert_eq!(remove_cells(&strings(&["first"]), &[], &all), None);
        assert_eq!(remove_cells(&strings(&["first"]), &strings(&["second"]), &all), Some(strings(&["first"])));
    }

    #[tokio::test]
    async fn two_aliases_cannot_share_a_cell() {
        let topo = TopoServer::memory(&["a", "b", "c"]);
        let alias = |cells: &[&str]| CellsAlias { cells: strings(cells) };
        topo.create_cells_alias("one", &alias(&["a", "b"])).await.expect("first alias");
        let error = topo.create_cells_alias("two", &alias(&["b", "c"])).await.expect_err("b is taken");
        assert_eq!(error.to_string(), "cells alias two is not valid: cell set overlaps with existing alias one");
        topo.create_cells_alias("two", &alias(&["c"])).await.expect("no overlap");
        let widen = |cells: &mut CellsAlias| {
            cells.cells.push("a".into());
            Ok(Update::Write)
        };
        assert!(topo.update_cells_alias("two", widen).await.is_err());
        assert_eq!(topo.get_alias_by_cell("b").await, Ok("one".into()));
        assert_eq!(topo.expand_cells("one,c").await, Ok(strings(&["a", "b", "c"])));
        assert!(topo.expand_cells("nope").await.is_err());
        assert_eq!(topo.expand_cells("").await, Ok(strings(&["a", "b", "c"])));
    }

    #[tokio::test]
    async fn a_cell_is_changed_field_by_field() {
        let topo = TopoServer::memory(&["a"]);
        let set = |info: &mut CellInfo| {
            info.root = "/r".into();
            Ok(Update::Write)
        };
        topo.update_cell_info_fields("new", set).await.expect("created");
        assert_eq!(topo.get_cell_info("new").await.expect("there").root, "/r");
        topo.delete_cell_info("new").await.expect("deleted");
        assert!(topo.get_cell_info("new").await.expect_err("gone").is_no_node());
    }
}
