//! Copying: both stores, the request, and what is said about the result.

use std::sync::Arc;

use ncc_copy::{CopyError, Observer, Report, Request};
use ncc_local_store::{Access, LocalStore};
use ncc_store::StorePath;

use crate::{
    arguments::Arguments,
    failure::{Failure, chain},
    progress::{Direction, Lines},
    roots, stores,
};

/// Copies what the arguments say.
pub(crate) async fn copy(arguments: &Arguments) -> Result<(), Failure> {
    let config = stores::local_config(arguments)?;
    let host = arguments.host.as_deref().unwrap_or_default();
    let roots = arguments
        .paths
        .iter()
        .map(|path| roots::resolve(path, &config))
        .collect::<Result<Vec<StorePath>, _>>()
        .map_err(|error| Failure::plain(&error))?;
    let store_dir = config.store_dir.clone();
    let remote = stores::remote(arguments, host, &store_dir)?;
    if roots.is_empty() {
        tracing::info!("no paths given, nothing to copy");
        return Ok(());
    }

    let access = if arguments.from { Access::ReadWrite } else { Access::ReadOnly };
    let local = LocalStore::open(config, access).map_err(|error| Failure::plain(&error))?;
    let request = Request::new(roots);
    let host = remote.host.clone();
    let direction = if arguments.from { Direction::From(host) } else { Direction::To(host) };
    let observer: Arc<dyn Observer> = Arc::new(Lines { store_dir, direction });
    let result = if arguments.from {
        ncc_copy::copy(&remote.store, &local, &request, &observer).await
    } else {
        ncc_copy::copy(&local, &remote.store, &request, &observer).await
    };
    let report = result.map_err(|error| explain(&error))?;
    remote.store.close().await;
    tell(&report);
    Ok(())
}

fn tell(report: &Report) {
    tracing::info!(
        sent = report.sent.paths,
        bytes = report.sent.bytes,
        present = report.present.paths,
        seconds = report.elapsed.as_secs_f32(),
        "done"
    );
}

/// Where several paths failed, each gets its own line before the summary.
fn explain(error: &CopyError) -> Failure {
    if let CopyError::Failed { report } = error {
        for failed in &report.failed {
            if let Some(error) = &failed.error {
                eprintln!("error: {}", chain(error));
            }
        }
    }
    Failure::plain(error)
}
