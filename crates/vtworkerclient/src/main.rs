//! vtworkerclient sends one command to a vtworker and shows what comes back. Here: flags and the RPC;
//! the rest is what vtctlclient does. Interrupting it cancels the job at the vtworker.

use std::process::ExitCode;

use futures::StreamExt;
use servenv::logging::{Severity, write_line};
use servenv::{Program, Reported};
use vtctlclient::{ClientError, Command, Terminal};
use vtproto::vtworkerdata::ExecuteVtworkerCommandRequest;
use vtproto::vtworkerservice::vtworker_client::VtworkerClient;

fn main() -> ExitCode {
    servenv::main(
        Program::Vtworkerclient,
        |set| {
            set.synopsis(
                "-server <host:port> [flags] <command> [arguments]\n\
                 Without a command, vtworker answers with the list of its commands.",
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
    let protocol = env.flags().str("vtworker_client_protocol");
    if protocol != "grpc" {
        return Err(ClientError::Protocol("vtworker", protocol.into()));
    }
    let command = Command::from_flags(env, "vtworker", "vtworker_client_grpc")?;
    env.flags().warn_without_effect();
    let request = ExecuteVtworkerCommandRequest { args: env.flags().args().to_vec() };
    let limit = env.grpc_max_message_size();
    command
        .run(&mut Terminal, servenv::terminated(), async move |channel, auth| {
            let mut client =
                VtworkerClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit);
            let events = client.execute_vtworker_command(auth.request(request)).await?.into_inner();
            Ok(events.map(|response| response.map(|response| response.event.unwrap_or_default())).boxed())
        })
        .await
}
