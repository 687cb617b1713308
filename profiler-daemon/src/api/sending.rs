//! Answers of several messages on their way to a client, which may be slow or may never read them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::error::ApiError;

/// How long a client may take nothing before an answer is thrown away.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Messages that come when the client takes them.
pub(super) type Sent<T> = ReceiverStream<Result<T, Status>>;

/// Sends messages as the client takes them, each made when it is due, off the async threads. They
/// and `held` go with the last one; or once the client took none for [`PATIENCE`], which it is told
/// if it ever reads on, so that nobody can make the daemon keep answers.
pub(super) fn sent<T, I>(messages: I, held: impl Send + 'static) -> Sent<T>
where
    T: Send + 'static,
    I: Iterator<Item = Result<T, Status>> + Send + 'static,
{
    sent_within(PATIENCE, messages, held)
}

fn sent_within<T, I>(patience: Duration, messages: I, held: impl Send + 'static) -> Sent<T>
where
    T: Send + 'static,
    I: Iterator<Item = Result<T, Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let (mut messages, held) = (messages, held);
        let failed = loop {
            let next = tokio::task::spawn_blocking(move || (messages.next(), messages)).await;
            let message = match next {
                Ok((Some(message), rest)) => {
                    messages = rest;
                    message
                }
                Ok((None, _)) => return,
                Err(error) => break ApiError::Unfinished(error),
            };
            match sender.send_timeout(message, patience).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return,
                Err(SendTimeoutError::Timeout(_)) => {
                    drop(messages);
                    break ApiError::NotTaken { patience };
                }
            }
        };
        drop(held);
        let _client_gone = sender.send(Err(failed.into())).await;
    });
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_given_up_and_that_is_said() {
        let held = Arc::new(());
        let numbers = sent((0..100).map(Ok), Arc::clone(&held));
        let all: Vec<u32> = numbers.map(|number| number.expect("sent")).collect().await;
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(Arc::strong_count(&held), 1, "what was held goes with the last");

        let patience = Duration::from_millis(50);
        let mut numbers = sent_within(patience, (0..100).map(Ok), Arc::clone(&held));
        assert_eq!(numbers.next().await.map(|number| number.ok()), Some(Some(0)));
        assert_eq!(Arc::strong_count(&held), 2);
        let given_up = async {
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(patience).await;
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.expect("a stalled client holds nothing for ever");
        let rest: Vec<_> = numbers.collect().await;
        let last = rest.last().expect("an end").as_ref().expect_err("must be said");
        assert_eq!(last.code(), tonic::Code::DeadlineExceeded);
        assert!(rest.len() < 5, "{rest:?}");
    }
}
