//! The wish to end, from whoever may have it: Ctrl-C, a service manager, a closing terminal.

/// Returns at the first of them.
#[cfg(unix)]
pub(crate) async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};

    let wait_for = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // The system gives no handler for it: it then ends the process as it always did.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait_for(SignalKind::interrupt()) => {}
        () = wait_for(SignalKind::terminate()) => {}
        () = wait_for(SignalKind::hangup()) => {}
    }
}

/// Returns at the first of them.
#[cfg(windows)]
pub(crate) async fn stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        // The system gives no handler: Ctrl-C then ends the process as it always did.
        std::future::pending::<()>().await;
    }
}
