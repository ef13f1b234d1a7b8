//! `isolet-operator`: parse, run.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use isolet_operator::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolet-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("--log is no filter of log lines")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    match config.log_format {
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Text => logs.init(),
    }
    let stop = isolet_operator::signals::stop()?;
    let client = kube::Client::try_default()
        .await
        .map_err(|error| anyhow::anyhow!("failed to find the API server: {error}"))?;
    Ok(isolet_operator::run(config, client, stop).await?)
}
