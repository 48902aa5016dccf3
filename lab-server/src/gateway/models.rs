//! What the Lab can have done with the models of a workstation, where its owner allows it.

use api_proxy::{NotRelayed, Order, Part};
use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use wire::{
    DeviceId, ModelName, RequestId,
    relay::{Operation, Outcome},
};

use super::{Gateway, relay};

impl Gateway {
    /// Has a workstation download a model. The body's lines are [`wire::relay::PullLine`]s; dropping it stops the download, of which
    /// what has arrived is kept.
    pub(crate) async fn pull(&self, device: DeviceId, model: &ModelName) -> Result<Incoming, NotRelayed> {
        let link = self.registry.reach_now(device).ok_or(NotRelayed::Offline)?;
        let answer = link.pull(model).await.map_err(|_| NotRelayed::LinkLost)?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        Err(relay::refusal(answer).await.map_or(NotRelayed::LinkLost, NotRelayed::Refused))
    }

    /// Has a workstation take a model out of memory: Ollama does it when it is asked to say nothing and to keep it no longer. What it
    /// works on is finished first.
    pub(crate) async fn unload(&self, device: DeviceId, model: &ModelName) -> Result<(), NotRelayed> {
        let body = serde_json::json!({ "model": model, "keep_alive": 0, "stream": false }).to_string();
        let operation = Operation::OllamaGenerate;
        let order = Order { request: RequestId::random(), operation, body: Bytes::from(body).into(), streamed: false };
        let mut answer = relay::relay(self, device, order).await?;
        loop {
            match answer.body.part().await {
                Part::Bytes(_) => {}
                Part::End(ending) if ending.outcome == Outcome::Complete && answer.status == StatusCode::OK => return Ok(()),
                Part::End(_) => return Err(NotRelayed::LinkLost),
            }
        }
    }
}
