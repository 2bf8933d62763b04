//! What a deployed function's environment does: it starts the extension, and its telemetry arrives.
//!
//! `tests/deploy/run` deploys the stack of `scripts/cdk` into an emulator, reads a function's environment and layer
//! back, and comes here with both: `KTE_DEPLOYED_ENV` names a JSON file with the variables, `KTE_BINARY` the program.
//! For functions that `scripts/attach` has changed, `KTE_DEPLOYED_FLEET` names a file with the variables of each, and
//! `KTE_DEPLOYED_ENDPOINT` the emulator, where somebody else reads what arrives.

use std::collections::BTreeMap;

use sandbox::{Invocation, Kinesis, Lambda};

use crate::{binary, runner};

type Variables = BTreeMap<String, String>;

fn read<T: serde::de::DeserializeOwned>(file: impl AsRef<std::path::Path>) -> T {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_deployed_functions_environment_ships_its_telemetry() {
    let Some(file) = std::env::var_os("KTE_DEPLOYED_ENV") else { return };
    let variables: Variables = read(file);

    // A Kinesis that takes records for the deployed stream only: arn:aws:kinesis:<region>:<account>:stream/<name>.
    let arn: Vec<&str> = variables["KINESIS_TELEMETRY_STREAM"].split([':', '/']).collect();
    let kinesis = Kinesis::builder().stream(arn[6]).owned_by(arn[4], arn[3]).start();
    let sandbox = runner(
        Lambda::builder(binary())
            .kinesis(&kinesis)
            .tmp_in("TMPDIR")
            .without_env("KINESIS_TELEMETRY_STREAM"),
    );
    let lambda =
        variables.iter().fold(sandbox, |sandbox, (name, value)| sandbox.env(name, value)).start();

    lambda.init().unwrap();
    for n in 0..3 {
        lambda.invoke(Invocation::new().text(&format!("line {n}"))).unwrap();
    }
    assert!(lambda.shutdown("spindown").is_clean());
    assert!(lambda.stderr().is_empty(), "{:?}", lambda.stderr());
    let account = kinesis.account();
    account.compare(&lambda.sent()).assert_clean();
    assert_eq!(account.of_type("function").len(), 3);
}

#[test]
fn attached_functions_ship_their_telemetry_to_the_emulator() {
    let Some(file) = std::env::var_os("KTE_DEPLOYED_FLEET") else { return };
    let endpoint = std::env::var("KTE_DEPLOYED_ENDPOINT").unwrap();
    let fleet: BTreeMap<String, Variables> = read(file);
    assert!(!fleet.is_empty());
    for (function, variables) in fleet {
        let sandbox = runner(Lambda::builder(binary()).function(&function, "$LATEST"))
            .tmp_in("TMPDIR")
            .env("AWS_ENDPOINT_URL_KINESIS", &endpoint);
        let lambda =
            variables.iter().fold(sandbox, |it, (name, value)| it.env(name, value)).start();
        lambda.init().unwrap();
        lambda.invoke(Invocation::new().text(&format!("hello from {function}"))).unwrap();
        assert!(lambda.shutdown("spindown").is_clean());
        assert!(lambda.stderr().is_empty(), "{function}: {:?}", lambda.stderr());
    }
}
