//! The story: arguments, settings, registration, the `/next` loop, exit code. Whatever goes wrong,
//! the function lives: an extension that cannot work is idle, and only calls `/next`.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use kinesis_telemetry_extension::config::{self, Environment, OnError, Problem};
use kinesis_telemetry_extension::extension::{Extension, NOT_HERE};
use kinesis_telemetry_extension::lambda::api::{Api, ExtensionId, NextEvent, Registered, own_name};
use kinesis_telemetry_extension::{check, log, panic};

/// The same in every build, so that what is tested is what is shipped; `Cargo.toml` says why this
/// one.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// What [`idle`] needs, which the panic hook calls if the main thread panics.
static IDLE_HANDLE: OnceLock<(Arc<Api>, ExtensionId)> = OnceLock::new();

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run(),
        ["--version" | "-V"] => {
            print(&format!("{} {}\n", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")))
        }
        ["--help" | "-h"] => print(&config::help()),
        ["--check"] => checked(),
        _ => {
            log::error!(
                "arguments",
                "{}: no such arguments; allowed is one of --help, --version, --check, \
                 or none to run as an extension",
                arguments.join(" ")
            );
            ExitCode::from(2)
        }
    }
}

/// Runs as an extension, until SHUTDOWN.
fn run() -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    // `main` never goes on after a panic of its own: the hook is its loop from then on, and its
    // end.
    panic::install_hook(|| std::process::exit(i32::from(idle() != ExitCode::SUCCESS)));
    let (basics, config) = config::read(&environment);
    log::start(basics.log_level, basics.log_format);
    if basics.runtime_api.is_empty() {
        log::error!(
            "no-lambda",
            "AWS_LAMBDA_RUNTIME_API is not set: Lambda starts this program from a layer; \
             to test settings use --check"
        );
        return ExitCode::FAILURE;
    }
    let unknown = environment.unknown();
    if !unknown.is_empty() {
        log::warn!("unknown", "no such setting: {}; see --help", unknown.join(", "));
    }

    let api = Arc::new(Api::new(&basics.runtime_api));
    // With bad settings nothing has to be done at an INVOKE, so none is asked for.
    let invokes = !basics.managed_instances && config.is_ok();
    let registered = match api.register(&own_name(), invokes) {
        Ok(registered) => registered,
        Err(error) => {
            log::error!("register", "{error}; without that an extension cannot stay");
            return ExitCode::FAILURE;
        }
    };
    let _ = IDLE_HANDLE.set((Arc::clone(&api), registered.id.clone()));

    match config
        .map_err(|problems| bad_settings(&problems))
        .and_then(|config| start(&config, &api, &registered))
    {
        Ok(extension) => serve(&api, &registered.id, Some(&extension)),
        Err((kind, line)) => {
            log::error!("start", "{line}");
            // Where there is no Telemetry API, as in an emulator, nothing is wrong with the
            // settings.
            if basics.on_error == OnError::Fail && kind != NOT_HERE {
                api.init_error(&registered.id, kind);
                return ExitCode::FAILURE;
            }
            idle()
        }
    }
}

/// `--check`
fn checked() -> ExitCode {
    let environment: Environment = std::env::vars_os().collect();
    let report = check::run(config::read(&environment).1, &environment.unknown());
    print(&report.text);
    if report.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Why the extension idles: an error type for `init/error`, and one line for a person.
type Idle = (&'static str, String);

fn bad_settings(problems: &[Problem]) -> Idle {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (
        "Extension.BadSettings",
        format!(
            "no telemetry is sent, because of {} bad setting(s): {}",
            all.len(),
            all.join("; ")
        ),
    )
}

fn start(config: &config::Config, api: &Api, registered: &Registered) -> Result<Extension, Idle> {
    Extension::start(config, api, registered)
        .map_err(|error| (error.kind(), format!("no telemetry is sent: {error}")))
}

/// The `/next` loop, until SHUTDOWN. Without an extension it is an idle one, which holds no
/// invocation.
fn serve(api: &Api, id: &ExtensionId, extension: Option<&Extension>) -> ExitCode {
    loop {
        match (api.next(id), extension) {
            // After a panic there may be nobody left to ask.
            (Ok(NextEvent::Invoke(invoke)), Some(extension)) if !panic::happened() => {
                extension.invoked(invoke)
            }
            (Ok(NextEvent::Invoke(_)), _) => {}
            (Ok(NextEvent::Shutdown { deadline_ms, reason }), extension) => {
                extension.inspect(|extension| extension.stop(deadline_ms, reason));
                return ExitCode::SUCCESS;
            }
            (Err(error), extension) => {
                extension.filter(|_| !panic::happened()).inspect(|extension| extension.abandon());
                return gone(api, id, &error);
            }
        }
    }
}

/// The loop of an idle extension, if it could register.
fn idle() -> ExitCode {
    IDLE_HANDLE.get().map_or(ExitCode::FAILURE, |(api, id)| serve(api, id, None))
}

/// `/next` has failed for good.
fn gone(api: &Api, id: &ExtensionId, error: &dyn std::error::Error) -> ExitCode {
    log::error!("gone", "{error}; Lambda's API is gone, and so is the extension");
    api.exit_error(id, "Extension.NextFailed");
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    // A closed pipe is the reader's way of saying "enough".
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
