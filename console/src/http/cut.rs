use tokio_util::sync::CancellationToken;

/// Ends the connection that a request came on, whatever it is doing. A client that reads nothing
/// can be told nothing either: the socket takes no more bytes, and hyper waits for it without end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(CancellationToken);

impl Cut {
    pub(crate) fn make(&self) {
        self.0.cancel();
    }

    pub(crate) async fn made(&self) {
        self.0.cancelled().await;
    }
}
