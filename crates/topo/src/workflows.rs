//! Records of the workflow manager.

use vtproto::workflow::Workflow;

use crate::{
    conn::Version,
    error::Result,
    paths::{self, WORKFLOWS_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, read},
};

impl TopoServer {
    pub async fn get_workflow_names(&self) -> Result<Vec<String>> {
        self.names(self.global(), WORKFLOWS_DIR).await
    }

    pub async fn create_workflow(&self, workflow: &Workflow) -> Result<Version> {
        let contents = record::encode(workflow, &UnknownFields::default());
        self.global().create(&paths::workflow_path(&workflow.uuid), contents).await
    }

    pub async fn get_workflow(&self, uuid: &str) -> Result<(Workflow, Version)> {
        let (workflow, _, version) = read(&**self.global(), &paths::workflow_path(uuid)).await?;
        Ok((workflow, version))
    }

    /// Writes a workflow if nobody else has written it since `version`.
    pub async fn save_workflow(&self, workflow: &Workflow, version: Version) -> Result<Version> {
        let contents = record::encode(workflow, &UnknownFields::default());
        self.global().update(&paths::workflow_path(&workflow.uuid), contents, Some(version)).await
    }

    pub async fn delete_workflow(&self, uuid: &str, version: Version) -> Result<()> {
        self.global().delete(&paths::workflow_path(uuid), Some(version)).await
    }
}
