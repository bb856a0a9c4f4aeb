//! The commands on the throttlers of a vtworker or vttablet.

use std::time::Duration;

use ::throttler::UNLIMITED;
use servenv::flags::Parsed;
use servenv::grpc::ClientAuth;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use vterrors::VtError;
use vtproto::throttlerdata::{
    Configuration, GetConfigurationRequest, MaxRatesRequest, ResetConfigurationRequest, SetMaxRateRequest,
    UpdateConfigurationRequest,
};
use vtproto::throttlerservice::throttler_client::ThrottlerClient;

use crate::Wrangler;
use crate::command::{Command, command};
use crate::error::{Error, Result, bail, err};
use crate::table;

/// How long a server may take.
const LIMIT: Duration = Duration::from_secs(15);
const SERVER: &str = "vtworker or vttablet to connect to (host:grpcport)";

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "ThrottlerMaxRates",
        "-server <vtworker or vttablet>",
        "Lists the maximum rates of all throttlers.",
        |f| {
            f.string("server", "", SERVER);
        },
        max_rates
    ),
    command!(
        "ThrottlerSetMaxRate",
        "-server <vtworker or vttablet> <rate>",
        "Sets the maximum rate of all throttlers: a number, or unlimited.",
        |f| {
            f.string("server", "", SERVER);
        },
        set_max_rate
    ),
    command!(
        "GetThrottlerConfiguration",
        "-server <vtworker or vttablet> [<throttler name>]",
        "Shows the configuration of one throttler or of all.",
        |f| {
            f.string("server", "", SERVER);
        },
        get_configuration
    ),
    command!(
        "UpdateThrottlerConfiguration",
        "-server <vtworker or vttablet> [-copy_zero_values] \"<configuration protobuf text>\" [<throttler name>]",
        "Changes the configuration of one throttler or of all: max_replication_lag_sec.",
        |f| {
            f.string("server", "", SERVER).bool(
                "copy_zero_values",
                false,
                "take over zero values of the configuration too",
            );
        },
        update_configuration
    ),
    command!(
        "ResetThrottlerConfiguration",
        "-server <vtworker or vttablet> [<throttler name>]",
        "Resets the configuration of one throttler or of all.",
        |f| {
            f.string("server", "", SERVER);
        },
        reset_configuration
    ),
];

type Client = ThrottlerClient<InterceptedService<Channel, ClientAuth>>;

/// A client of `-server`, and its name.
fn dial(wr: &Wrangler, args: &Parsed, command: &str) -> Result<(Client, String)> {
    let server = args.str("server");
    if server.is_empty() {
        bail!("the {command} command requires the -server flag: a vtworker or vttablet as host:grpcport");
    }
    let options = &wr.config().throttler_client;
    let channel = options
        .channel(server)
        .map_err(|error| err!("error creating a throttler client for server '{server}': {error}"))?;
    Ok((ThrottlerClient::with_interceptor(channel, options.auth.clone()), server.to_owned()))
}

/// Waits for an answer. `what` was to be done with `server`.
async fn answer<T>(
    call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    what: &str,
    server: &str,
) -> Result<T> {
    let failed = |error: &dyn std::fmt::Display| -> Error { err!("failed to {what} server '{server}': {error}") };
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failed(&VtError::from_status(&status))),
        Err(_) => Err(failed(&"context deadline exceeded")),
    }
}

fn no_throttlers(server: &str) -> String {
    format!("There are no active throttlers on server '{server}'.\n")
}

async fn print_updated(wr: &Wrangler, command: &str, server: &str, names: &[String], more: &str) {
    if names.is_empty() {
        let text = format!("{command} did nothing because server '{server}' has no active throttlers.\n");
        return wr.logger().print(text).await;
    }
    let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
    let table = table::render(&["Name".to_owned()], &rows);
    let count = names.len();
    wr.logger().print(format!("{table}{count} active throttler(s) on server '{server}' were updated.\n{more}")).await;
}

/// The name of a throttler, if one is given, behind `before` other arguments.
fn throttler_name(args: &Parsed, before: usize) -> String {
    args.args().get(before).cloned().unwrap_or_default()
}

async fn max_rates(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("the ThrottlerMaxRates command does not accept any positional parameters");
    }
    let (mut client, server) = dial(&wr, &args, "ThrottlerMaxRates")?;
    let rates = answer(client.max_rates(MaxRatesRequest {}), "get the throttler rate from", &server).await?.rates;
    if rates.is_empty() {
        wr.logger().print(no_throttlers(&server)).await;
        return Ok(());
    }
    let shown = |rate: &i64| if *rate == UNLIMITED { "unlimited".to_owned() } else { rate.to_string() };
    let rows: Vec<Vec<String>> = rates.iter().map(|(name, rate)| vec![name.clone(), shown(rate)]).collect();
    let table = table::render(&["Name".to_owned(), "Rate".to_owned()], &rows);
    wr.logger().print(format!("{table}{} active throttler(s) on server '{server}'.\n", rows.len())).await;
    Ok(())
}

async fn set_max_rate(wr: Wrangler, args: Parsed) -> Result {
    let [text] = args.args() else {
        bail!("the <rate> argument is required for the ThrottlerSetMaxRate command");
    };
    let rate = match text.as_str() {
        text if text.eq_ignore_ascii_case("unlimited") => UNLIMITED,
        text => text.parse().map_err(|error| err!("failed to parse rate '{text}' as integer value: {error}"))?,
    };
    let (mut client, server) = dial(&wr, &args, "ThrottlerSetMaxRate")?;
    let call = client.set_max_rate(SetMaxRateRequest { rate });
    let names = answer(call, "set the throttler rate on", &server).await?.names;
    print_updated(&wr, "ThrottlerSetMaxRate", &server, &names, "").await;
    Ok(())
}

async fn get_configuration(wr: Wrangler, args: Parsed) -> Result {
    if args.args().len() > 1 {
        bail!("the GetThrottlerConfiguration command accepts only <throttler name> as optional positional parameter");
    }
    let (mut client, server) = dial(&wr, &args, "GetThrottlerConfiguration")?;
    let call = client.get_configuration(GetConfigurationRequest { throttler_name: throttler_name(&args, 0) });
    let configurations = answer(call, "get the throttler configuration from", &server).await?.configurations;
    if configurations.is_empty() {
        wr.logger().print(no_throttlers(&server)).await;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = configurations
        .iter()
        .map(|(name, configuration)| vec![name.clone(), vtjson::text_compact(configuration)])
        .collect();
    // It stays on one line, so that it can be copied.
    let header = ["Name", "Configuration (protobuf text, fields with a zero value are omitted)"].map(str::to_owned);
    let table = table::render_unwrapped(&header, &rows);
    wr.logger().print(format!("{table}{} active throttler(s) on server '{server}'.\n", rows.len())).await;
    Ok(())
}

async fn update_configuration(wr: Wrangler, args: Parsed) -> Result {
    let text = match args.args() {
        [text] | [text, _] => text,
        _ => bail!(
            "the \"<configuration protobuf text>\" argument is required for the UpdateThrottlerConfiguration command. \
             The <throttler name> is an optional positional parameter"
        ),
    };
    let configuration: Configuration = vtjson::from_text(text).map_err(|error| {
        err!("failed to unmarshal the configuration protobuf text ({text}) into a protobuf instance: {error}")
    })?;
    let (mut client, server) = dial(&wr, &args, "UpdateThrottlerConfiguration")?;
    let call = client.update_configuration(UpdateConfigurationRequest {
        throttler_name: throttler_name(&args, 1),
        configuration: Some(configuration),
        copy_zero_values: args.bool("copy_zero_values"),
    });
    let names = answer(call, "update the throttler configuration on", &server).await?.names;
    let more = "The new configuration will become effective with the next recalculation event.\n";
    print_updated(&wr, "UpdateThrottlerConfiguration", &server, &names, more).await;
    Ok(())
}

async fn reset_configuration(wr: Wrangler, args: Parsed) -> Result {
    if args.args().len() > 1 {
        bail!("the ResetThrottlerConfiguration command accepts only <throttler name> as optional positional parameter");
    }
    let (mut client, server) = dial(&wr, &args, "ResetThrottlerConfiguration")?;
    let call = client.reset_configuration(ResetConfigurationRequest { throttler_name: throttler_name(&args, 0) });
    let names = answer(call, "reset the throttler configuration on", &server).await?.names;
    let more = "The reset initial configuration will become effective with the next recalculation event.\n";
    print_updated(&wr, "ResetThrottlerConfiguration", &server, &names, more).await;
    Ok(())
}
