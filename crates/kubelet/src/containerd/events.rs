//! containerd's own events: the end of a process is known at once, without asking.

use containerd_client::Client;
use containerd_client::events::{TaskDelete, TaskExit, TaskOom};
use containerd_client::services::v1::SubscribeRequest;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Channel;

use super::import::NAMESPACE;

/// What happened to the task of a container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    Exited { id: String },
    OutOfMemory { id: String },
}

/// Events that wait to be handled; more than this means that nobody listens, and then the relist finds out.
const WAITING: usize = 1024;

/// A subscription. It lives in a task of its own, since containerd answers the call with its first event.
pub struct Events {
    receiver: mpsc::Receiver<Result<TaskEvent, Status>>,
    task: tokio::task::JoinHandle<()>,
}

impl Events {
    pub fn subscribe(channel: Channel) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move {
            if let Err(status) = forward(channel, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Self { receiver, task }
    }

    /// The next event that matters; an error means that containerd went away.
    pub async fn next(&mut self) -> Result<TaskEvent, Status> {
        self.receiver.recv().await.unwrap_or_else(|| Err(Status::unavailable("the event stream ended")))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(channel: Channel, to: &mpsc::Sender<Result<TaskEvent, Status>>) -> Result<(), Status> {
    let filters = ["/tasks/exit", "/tasks/delete", "/tasks/oom"]
        .iter()
        .map(|topic| format!("namespace==\"{NAMESPACE}\",topic==\"{topic}\""))
        .collect();
    let mut stream =
        Client::from(channel).events().subscribe(SubscribeRequest { filters }).await?.into_inner();
    while let Some(envelope) = stream.message().await? {
        let event = envelope.event.and_then(|event| decode(&event.type_url, &event.value));
        if let Some(event) = event
            && to.send(Ok(event)).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

fn decode(type_url: &str, value: &[u8]) -> Option<TaskEvent> {
    let kind = type_url.rsplit('/').next().unwrap_or(type_url);
    match kind {
        "containerd.events.TaskExit" => {
            let event = TaskExit::decode(value).ok()?;
            // other ids are those of exec processes
            (event.id == event.container_id).then_some(TaskEvent::Exited { id: event.container_id })
        }
        // Deleting the task is what the CRI plugin does last before it knows of the exit.
        "containerd.events.TaskDelete" => {
            let event = TaskDelete::decode(value).ok()?;
            (event.id.is_empty() || event.id == event.container_id)
                .then_some(TaskEvent::Exited { id: event.container_id })
        }
        "containerd.events.TaskOOM" => {
            TaskOom::decode(value).ok().map(|event| TaskEvent::OutOfMemory { id: event.container_id })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_process_counts() {
        let exit = |id: &str| TaskExit { container_id: "c".into(), id: id.into(), ..Default::default() };
        let seen = |event: TaskExit| decode("containerd.events.TaskExit", &event.encode_to_vec());
        assert_eq!(seen(exit("c")), Some(TaskEvent::Exited { id: "c".into() }));
        assert_eq!(seen(exit("exec-1")), None);
        assert_eq!(decode("containerd.events.TaskStart", &[]), None);
        assert_eq!(decode("containerd.events.TaskExit", &[0xff]), None);
    }
}
