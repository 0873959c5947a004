//! Flags of what becomes of a container while it runs and when it ends.

use clap::Args;

use crate::engine::options::supervision::{
    HealthAction, HealthOptions, parse_health_command, parse_health_time, parse_log, parse_signal,
};
use crate::engine::options::{self, RunOptions};
use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;

/// Who looks after it, and how.
#[derive(Debug, Args)]
pub(super) struct SupervisionArgs {
    /// Signal that asks the command to end
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    stop_signal: Option<String>,
    /// Seconds after that until it is killed; -1 for never
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Kill the container after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// When to start it again: no, on-failure[:NUMBER], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: RestartPolicy,
    /// Where the log goes: json-file, k8s-file, journald, passthrough or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// Option of the log: max-size, max-file, mode, max-buffer-size, tag, labels, env
    #[arg(long, value_name = "NAME=VALUE", value_parser = options::parse_pair)]
    log_opt: Vec<(String, String)>,
    /// Command that tells whether the container is well; none for no check
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "TIME", value_parser = parse_health_time)]
    health_interval: Option<u64>,
    /// Most time that a check may take
    #[arg(long, value_name = "TIME", value_parser = parse_health_time)]
    health_timeout: Option<u64>,
    /// Failures in a row that make it ill
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time in which failures do not count
    #[arg(long, value_name = "TIME", value_parser = parse_health_time)]
    health_start_period: Option<u64>,
    /// Time between two checks in that time
    #[arg(long, value_name = "TIME", value_parser = parse_health_time)]
    health_start_interval: Option<u64>,
    /// What to do when it is ill: none, kill, restart, stop
    #[arg(long, value_name = "ACTION", default_value = "none")]
    health_on_failure: HealthAction,
    /// Leave out the image's check
    #[arg(long)]
    no_healthcheck: bool,
}

impl SupervisionArgs {
    pub(super) fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self {
            stop_signal,
            stop_timeout,
            timeout,
            restart,
            log_driver,
            log_opt,
            health_cmd,
            health_interval,
            health_timeout,
            health_retries,
            health_start_period,
            health_start_interval,
            health_on_failure,
            no_healthcheck,
        } = self;
        options.stop_signal = stop_signal;
        options.stop_timeout_seconds = match stop_timeout {
            None => None,
            // Longer than any machine runs: nobody is killed.
            Some(-1) => Some(u32::MAX),
            Some(seconds) => Some(u32::try_from(seconds).map_err(|_| {
                Error::invalid(format!("stop-timeout: {seconds} is neither -1 nor a number of seconds"))
            })?),
        };
        options.timeout_seconds = timeout.filter(|seconds| *seconds > 0);
        options.restart = restart;
        (options.log, options.log_attributes) = parse_log(&log_driver, &log_opt)?;
        let test = health_cmd.as_deref().filter(|command| !command.is_empty()).map(parse_health_command);
        let given = [health_interval, health_timeout, health_start_period, health_start_interval];
        if no_healthcheck && (test.is_some() || health_retries.is_some() || given.iter().any(Option::is_some)) {
            return Err(Error::invalid("--no-healthcheck conflicts with --health-* options"));
        }
        options.health = HealthOptions {
            disabled: no_healthcheck || test == Some(None),
            test: test.flatten(),
            interval: health_interval,
            timeout: health_timeout,
            start_period: health_start_period,
            start_interval: health_start_interval,
            retries: health_retries,
            on_failure: health_on_failure,
        };
        Ok(())
    }
}
