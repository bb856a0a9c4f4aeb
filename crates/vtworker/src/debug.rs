//! Ping, Block and Panic: jobs without work, to try out clients and operations.

use futures::FutureExt;
use servenv::flags::Parsed;
use vterrors::{Code, VtError};

use crate::command::{Command, Work, exactly};
use crate::instance::JobContext;
use crate::status::State;

pub(crate) const COMMANDS: &[Command] = &[
    Command { name: "Ping", params: "<message>", help: "Answers the message.", flags: |_| {}, prepare: ping },
    Command { name: "Block", params: "", help: "Waits until it is canceled.", flags: |_| {}, prepare: block },
    Command { name: "Panic", params: "", help: "Panics.", flags: |_| {}, prepare: panic },
];

fn ping(args: Parsed) -> Result<Work, VtError> {
    let [message] = exactly(&args, "command Ping requires <message>")?;
    let text = format!("Ping command was called with message: '{message}'.\n");
    Ok(Box::new(|context| {
        async move {
            context.status.set_state(State::Debug);
            context.logger.print(text).await;
            Ok(())
        }
        .boxed()
    }))
}

fn block(args: Parsed) -> Result<Work, VtError> {
    let [] = exactly(&args, "command Block does not accept any parameters")?;
    Ok(Box::new(|context: JobContext| {
        async move {
            context.status.set_state(State::Debug);
            let text = "Block command was called and will block infinitely until the RPC context is canceled.\n";
            context.logger.print(text).await;
            context.stop.cancelled().await;
            Err(VtError::new(Code::Canceled, "command 'Block' was canceled"))
        }
        .boxed()
    }))
}

fn panic(args: Parsed) -> Result<Work, VtError> {
    let [] = exactly(&args, "command Panic does not accept any parameters")?;
    Ok(Box::new(|context: JobContext| {
        async move {
            context.status.set_state(State::Debug);
            panic!("Panic command was called. This should be caught by the vtworker framework and logged as an error.")
        }
        .boxed()
    }))
}
