//! Builds what starts captures by itself from the configuration: bundles, triggers, the webhook.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::AgentError;
use crate::api::Webhook;
use crate::bundle::{self, Bundles};
use crate::capture::Captures;
use crate::config::{Config, Secret};
use crate::store::Store;
use crate::trigger::{self, PressureWatch, Triggers};

/// What a window needs, after its end, to get into the store.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
/// Longest token file, bytes.
const MAX_TOKEN_FILE: u64 = 64 << 10;

/// Everything that captures trigger and are triggered by.
pub(super) struct Triggered {
    pub(super) bundles: Arc<Bundles>,
    pub(super) webhook: Option<Webhook>,
    pub(super) triggers: Arc<Triggers>,
    watch: PressureWatch,
}

impl Triggered {
    /// Starts to watch pressure. Must be called within a tokio runtime.
    pub(super) fn start(
        config: &Config,
        token: Option<Secret>,
        captures: &Arc<Captures>,
        store: &Arc<Store>,
    ) -> Self {
        let options = bundle::Options {
            directory: config.state_dir.join("bundles"),
            before: config.bundle.before,
            settle: config.window + ON_ITS_WAY,
            max_count: config.bundle.max_count as usize,
            max_bytes: config.bundle.max_bytes,
        };
        let bundles = Arc::new(Bundles::new(options, Arc::clone(captures), Arc::clone(store)));
        let options = trigger::Options {
            duration: config.trigger.duration,
            wakers: config.trigger.wakers,
            cooldown: config.trigger.cooldown,
            max_per_hour: config.trigger.max_per_hour as usize,
            targets: config.webhook.targets.clone(),
            host_without_target: config.webhook.host_without_target,
        };
        let triggers = Arc::new(Triggers::new(Arc::clone(captures), Arc::clone(&bundles), options));
        let watch = PressureWatch::start(&config.pressure.rules, &triggers);
        let webhook = token.map(|token| Webhook { token, triggers: Arc::clone(&triggers) });
        Self { bundles, webhook, triggers, watch }
    }

    /// Starts nothing more. Captures can then be ended.
    pub(super) async fn stop_watching(self) -> Arc<Bundles> {
        self.watch.shutdown().await;
        self.bundles
    }
}

/// The webhook's token, if there is to be a webhook.
pub(super) fn token(config: &Config) -> Result<Option<Secret>, AgentError> {
    match &config.webhook.token {
        Some(token) => Ok(Some(token.clone())),
        None => token_in("webhook.token_file", config.webhook.token_file.as_deref()),
    }
}

/// The token in the file that a key names, if it names one.
pub(super) fn token_in(key: &'static str, path: Option<&Path>) -> Result<Option<Secret>, AgentError> {
    let failed = |path: &Path, problem| AgentError::Token { key, path: path.to_owned(), problem };
    path.map(|path| read(path).map_err(|problem| failed(path, problem))).transpose()
}

fn read(path: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN_FILE).read_to_string(&mut text).map_err(|error| error.to_string())?;
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_comes_from_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let mut config = Config::default();
        assert!(token(&config).is_ok_and(|token| token.is_none()));
        config.webhook.token_file = Some(path.clone());
        let problem = || token(&config).expect_err("must fail");
        assert_eq!(problem().exit(), crate::cli::Exit::Usage);
        std::fs::write(&path, "short\n").expect("written");
        assert!(problem().to_string().contains("16 to 4096 characters"), "{}", problem());
        std::fs::write(&path, "0123456789abcdef\n").expect("written");
        let secret = token(&config).expect("good").expect("there");
        assert_eq!(secret.expose(), "0123456789abcdef");
    }
}
