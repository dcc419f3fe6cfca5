//! The turbopump daemon: one node of the cluster behind HTTP/1.1.

#![forbid(unsafe_code)]

use std::process;

use clap::{Parser, error::ErrorKind};
use turbopumpd::{
    args::{Args, Command},
    member, server, sign,
};

fn main() {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => e.exit(),
        Err(e) => {
            let text = e.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            refuse(first.strip_prefix("error: ").unwrap_or(first));
        }
    };
    let result = match &args.command {
        Some(Command::Id) => server::identify(&args),
        Some(Command::Sign(sign)) => sign::run(sign, args.mirrors),
        Some(Command::Member(member)) => member::run(member, &args.cluster, args.token_file.as_deref()),
        None => server::run(&args),
    };
    if let Err(reason) = result {
        refuse(&reason);
    }
}

/// One clear line, and the code that says that nothing ran.
fn refuse(reason: &str) -> ! {
    eprintln!("turbopumpd: {reason}");
    process::exit(server::EXIT_WRONG)
}
