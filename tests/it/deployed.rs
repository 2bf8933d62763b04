//! What a deployed function's environment does: it starts the extension, and its telemetry arrives.
//!
//! `tests/deploy/run` deploys the stack of `scripts/cdk` into an emulator, reads a function's environment and layer
//! back, and comes here with both: `KTE_DEPLOYED_ENV` names a JSON file with the variables, `KTE_BINARY` the program.

use std::collections::BTreeMap;

use sandbox::{Invocation, Kinesis, Lambda};

use crate::{binary, runner};

#[test]
fn a_deployed_functions_environment_ships_its_telemetry() {
    let Some(file) = std::env::var_os("KTE_DEPLOYED_ENV") else { return };
    let variables: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();

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
