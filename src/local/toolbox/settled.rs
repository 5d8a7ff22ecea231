//! Waiting for what happens once.

use tokio::sync::watch;

/// Waits until a value is there. `None`: it never will be, since whoever was to set it has gone.
pub(super) async fn settled<T: Copy>(receiver: &mut watch::Receiver<Option<T>>) -> Option<T> {
    receiver.wait_for(Option::is_some).await.ok().and_then(|value| *value)
}
