//! The web page: what the job does, its end, and a form that starts one.
//!
//! Invariant: what changes something needs the ADMIN role, and a browser may only send it from a page of this server.

use axum::Router;
use axum::extract::{Form, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use servenv::{Acl, Role, Server, html_escape};
use wrangler::Logger;

use crate::Instance;
use crate::command::GROUPS;

const IDLE: &str = "This worker is idle.";

/// Adds the pages and the section of `/debug/status`.
pub fn add(server: &mut Server, instance: &Instance, acl: Acl) {
    let shown = instance.clone();
    server.status_section("Worker status", move || status_html(&shown));
    let actions = Router::new()
        .route("/reset", get(reset))
        .route("/cancel", get(cancel))
        .layer(middleware::from_fn_with_state(acl, guard));
    let forms = Router::new()
        .route("/{group}/{command}", get(form).post(start))
        .layer(middleware::from_fn_with_state(acl, guard_posts));
    let routes = Router::new()
        .route("/", get(menu))
        .route("/status", any(status))
        .route("/{group}", get(group))
        .merge(actions)
        .merge(forms)
        .with_state(instance.clone());
    server.guarded_routes(Role::Debugging, routes);
}

fn status_html(instance: &Instance) -> String {
    match instance.status() {
        None => format!("<p>{IDLE}</p>"),
        Some(status) => {
            format!("<p>{}</p><pre>{}</pre>", html_escape(&status.command), html_escape(&status.text()))
        }
    }
}

fn page(body: &str) -> Html<String> {
    Html(format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>vtworker</title></head><body>\
         <h1>vtworker</h1><p><a href=\"/\">Commands</a> <a href=\"/status\">Status</a></p>{body}</body></html>\n"
    ))
}

async fn status(State(instance): State<Instance>) -> Html<String> {
    let control = match (instance.is_running(), instance.status()) {
        (true, _) => "<p><a href=\"/cancel\">Cancel</a></p>",
        (false, Some(_)) => "<p><a href=\"/reset\">Reset</a></p>",
        (false, None) => "",
    };
    page(&format!("<meta http-equiv=\"refresh\" content=\"2\">{}{control}", status_html(&instance)))
}

async fn menu() -> Html<String> {
    let mut body = String::new();
    for group in GROUPS {
        body.push_str(&format!("<h2>{}</h2><ul>", group.name));
        for command in group.commands {
            let (group, name) = (group.name, command.name);
            body.push_str(&format!("<li><a href=\"/{group}/{name}\">{name}</a>: {}</li>", command.help));
        }
        body.push_str("</ul>");
    }
    page(&body)
}

async fn group(Path(name): Path<String>) -> Response {
    match GROUPS.iter().any(|group| group.name == name) {
        true => menu().await.into_response(),
        false => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

fn find(group: &str, command: &str) -> Option<&'static crate::command::Command> {
    let group = GROUPS.iter().find(|known| known.name == group)?;
    group.commands.iter().find(|known| known.name == command)
}

async fn form(Path((group, command)): Path<(String, String)>) -> Response {
    let Some(command) = find(&group, &command) else {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    };
    let params = html_escape(command.params);
    page(&format!(
        "<h2>{}</h2><p>{}</p><form method=\"post\"><input name=\"args\" size=\"100\" placeholder=\"{params}\">\
         <button>Run</button></form><p>{params}</p>",
        command.name, command.help
    ))
    .into_response()
}

#[derive(serde::Deserialize)]
struct Arguments {
    #[serde(default)]
    args: String,
}

async fn start(
    State(instance): State<Instance>,
    Path((group, command)): Path<(String, String)>,
    Form(form): Form<Arguments>,
) -> Response {
    let Some(command) = find(&group, &command) else {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    };
    let words = form.args.split_whitespace().map(str::to_owned);
    let args: Vec<String> = std::iter::once(command.name.to_owned()).chain(words).collect();
    // The page does not wait for the job; its end shows on /status.
    tokio::spawn(async move {
        if let Err(error) = instance.run_command(&args, Logger::discard()).await {
            tracing::error!("{}: {error}", args.join(" "));
        }
    });
    Redirect::temporary("/status").into_response()
}

async fn reset(State(instance): State<Instance>) -> Response {
    match instance.reset() {
        Ok(()) => Redirect::temporary("/status").into_response(),
        Err(error) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

async fn cancel(State(instance): State<Instance>) -> Response {
    instance.cancel();
    Redirect::temporary("/status").into_response()
}

async fn guard(State(acl): State<Acl>, request: Request, next: Next) -> Response {
    if let Err(refused) = acl.check(Role::Admin) {
        return refused;
    }
    if is_foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, "requests from pages of other servers are refused\n").into_response();
    }
    next.run(request).await
}

async fn guard_posts(state: State<Acl>, request: Request, next: Next) -> Response {
    if request.method() == axum::http::Method::POST {
        guard(state, request, next).await
    } else {
        next.run(request).await
    }
}

/// Whether a browser sends this from a page of another server.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site") {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    origin.split_once("://").map(|(_, host)| host) != text(header::HOST)
}
