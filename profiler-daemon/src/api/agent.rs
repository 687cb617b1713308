//! `AgentService`: the agent's status, findings and settings.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Services, convert};
use crate::model;
use crate::proto::agent_service_server::AgentService;
use crate::proto::{
    FindingsRequest, FindingsResponse, SettingsRequest, SettingsResponse, StatusRequest, StatusResponse,
};

pub(super) struct Agent {
    status: Arc<dyn Fn() -> model::Status + Send + Sync>,
    findings: Arc<Vec<model::Finding>>,
    settings_toml: String,
}

impl Agent {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            status: Arc::clone(&services.status),
            findings: Arc::clone(&services.findings),
            settings_toml: services.settings_toml.clone(),
        }
    }
}

#[tonic::async_trait]
impl AgentService for Agent {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(convert::status(&(self.status)())))
    }

    async fn findings(
        &self,
        _request: Request<FindingsRequest>,
    ) -> Result<Response<FindingsResponse>, Status> {
        let findings = self.findings.iter().map(convert::finding).collect();
        Ok(Response::new(FindingsResponse { findings }))
    }

    async fn settings(
        &self,
        _request: Request<SettingsRequest>,
    ) -> Result<Response<SettingsResponse>, Status> {
        Ok(Response::new(SettingsResponse { toml: self.settings_toml.clone() }))
    }
}
