//! vtctlclient sends one command to a vtctld and shows what comes back. Here: flags and the RPC.

use std::process::ExitCode;

use futures::StreamExt;
use servenv::logging::{Severity, write_line};
use servenv::{Program, Reported};
use vtctlclient::{ClientError, Command, Terminal};
use vtproto::vtctldata::ExecuteVtctlCommandRequest;
use vtproto::vtctlservice::vtctl_client::VtctlClient;

fn main() -> ExitCode {
    servenv::main(
        Program::Vtctlclient,
        |set| {
            set.synopsis(
                "-server <host:port> [flags] <command> [arguments]\n\
                 Without a command, vtctld answers with the list of its commands.",
            );
        },
        async |env| match run(&env).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_help() => Ok(()),
            Err(error) => {
                write_line(Severity::Error, file!(), line!(), &error.to_string());
                Err(Reported.into())
            }
        },
    )
}

async fn run(env: &servenv::Env) -> Result<(), ClientError> {
    let protocol = env.flags().str("vtctl_client_protocol");
    if protocol != "grpc" {
        return Err(ClientError::Protocol("vtctl", protocol.into()));
    }
    let command = Command::from_flags(env, "vtctld", "vtctld_grpc")?;
    env.flags().warn_without_effect();
    let request = ExecuteVtctlCommandRequest {
        args: env.flags().args().to_vec(),
        action_timeout: i64::try_from(command.timeout.as_nanos()).unwrap_or(i64::MAX),
    };
    let limit = env.grpc_max_message_size();
    command
        .run(&mut Terminal, servenv::terminated(), async move |channel, auth| {
            let mut client =
                VtctlClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit);
            let events = client.execute_vtctl_command(auth.request(request)).await?.into_inner();
            Ok(events.map(|response| response.map(|response| response.event.unwrap_or_default())).boxed())
        })
        .await
}
