//! The web page: files that are part of the program, under `/app/`.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const INDEX: &str = include_str!("app/index.html");
const STYLE: &str = include_str!("app/style.css");
const SCRIPT: &str = include_str!("app/app.js");

/// The page, and the way to it from every path that nothing else answers.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(async || to_app()))
        .route("/app", get(async || to_app()))
        .route("/app/", get(async || page(INDEX, "text/html; charset=utf-8")))
        .route("/app/{*file}", get(file))
        .fallback(async || to_app())
}

async fn file(Path(path): Path<String>) -> Response {
    match path.as_str() {
        "style.css" => page(STYLE, "text/css; charset=utf-8"),
        "app.js" => page(SCRIPT, "text/javascript; charset=utf-8"),
        // Paths of the page itself, as of older versions: the page finds its way.
        path if path == "index.html" || !path.rsplit('/').next().unwrap_or("").contains('.') => {
            page(INDEX, "text/html; charset=utf-8")
        }
        _ => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

fn page(body: &'static str, content_type: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        // Everything the page needs comes from this server, and no other page may frame it.
        (header::CONTENT_SECURITY_POLICY, "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"),
    ];
    (headers, body).into_response()
}

/// A redirect with the body that Go's servers send.
pub(crate) fn redirect(status: StatusCode, reason: &str, location: &str) -> Response {
    let location_html = servenv::html_escape(location);
    let body = format!("<a href=\"{location_html}\">{reason}</a>.\n\n");
    let headers =
        [(header::LOCATION, location.to_owned()), (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned())];
    (status, headers, body).into_response()
}

pub(crate) fn to_app() -> Response {
    redirect(StatusCode::FOUND, "Found", "/app/")
}
