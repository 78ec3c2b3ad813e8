//! Binds a pod through the API.

use std::sync::Arc;

use async_trait::async_trait;

use crate::framework::{Bind, Bound, CycleState, Plugin, Status};
use crate::pod_info::PodInfo;
use crate::port::Port;

pub struct DefaultBinder {
    port: Arc<dyn Port>,
}

impl DefaultBinder {
    pub fn new(port: Arc<dyn Port>) -> Self {
        Self { port }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, _: &CycleState, pod: &PodInfo, node: &str) -> Result<Bound, Status> {
        match self.port.bind(&pod.pod, node).await {
            Ok(()) => Ok(Bound::Yes),
            Err(error) => Err(Status::error(error.to_string())),
        }
    }
}
