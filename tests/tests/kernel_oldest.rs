//! The oldest kernel that the agent is for takes its programs and has them carry traffic: tests of other suites, once
//! more, on Linux 6.1 in an emulated machine. What they are is said in `xtask/src/suites.rs`.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_tests::emulated::{Machine, ended};

/// Four times what two slow processors take.
const WITHIN: Duration = Duration::from_secs(600);

#[test]
fn linux_6_1_takes_the_programs_and_they_carry_traffic() {
    let said = |name: &str| {
        env::var_os(name).unwrap_or_else(|| {
            panic!("{name} is not set; `cargo xtask test kernel` builds and fetches what it names")
        })
    };
    let (package, tests) = (PathBuf::from(said("LB_KERNEL")), said("LB_KERNEL_TESTS"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
    let mut machine = Machine::new(&package, dir).expect("a machine");
    let wanted: BTreeSet<_> = env::split_paths(&tests)
        .map(|test| machine.add_test(&test).expect("a test program"))
        .collect();
    assert!(!wanted.is_empty(), "LB_KERNEL_TESTS names none");

    let printed = machine.run(WITHIN).expect("it runs to its end");

    // Shown if the test fails.
    println!("{printed}");
    assert!(printed.contains("== Linux 6.1."), "another kernel");
    let ended = ended(&printed);
    let failed: Vec<_> = ended
        .iter()
        .filter(|test| test.code != 0 || test.passed == 0)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let names: BTreeSet<_> = ended.into_iter().map(|test| test.name).collect();
    assert_eq!(names, wanted, "each has run to its end");
    let complaints =
        ["BUG: ", "WARNING: CPU: ", "Oops: "].map(|word| printed.matches(word).count());
    assert_eq!(complaints, [0; 3], "the kernel found fault with itself");
}
