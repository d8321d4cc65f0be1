//! A router that knows its routes: what a 405 names and what `/openapi.json` describes follow from the list.

use axum::Router;
use axum::handler::Handler;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, any};

use super::AppState;
use super::error::{self, Problem};

/// Methods in the order in which the reference's `Allow` names them.
const ORDER: [&str; 6] = ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"];

/// Every path of a prefix, and its methods.
pub(super) type Paths = Vec<(&'static str, Vec<&'static str>)>;

/// Routes under one prefix.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<AppState>,
    list: Paths,
}

impl Routes {
    /// Serves `path` by these methods.
    pub(super) fn route(mut self, path: &'static str, methods: Methods) -> Self {
        self.list.push((path, methods.names.clone()));
        self.router = self.router.route(path, methods.into_router());
        self
    }

    /// The router, and every path with its methods.
    pub(super) fn into_parts(self) -> (Router<AppState>, Paths) {
        (self.router, self.list)
    }
}

/// What one path serves, by method. Every other method is refused with those that there are.
pub(super) struct Methods {
    router: MethodRouter<AppState>,
    names: Vec<&'static str>,
    others: Others,
}

/// The answer to methods that a path does not serve.
enum Others {
    /// 405, naming those that it does.
    Allowed,
    /// 405, naming these.
    Named(&'static str),
    /// 404.
    Missing,
}

/// Declares what a line of the route table begins with.
macro_rules! begin {
    ($($method:ident)*) => {
        $(
            pub(super) fn $method<H: Handler<T, AppState>, T: 'static>(handler: H) -> Methods {
                Methods { router: any(error::not_found), names: Vec::new(), others: Others::Allowed }.$method(handler)
            }
        )*
    };
}

begin! { delete get post put }

/// Declares what a line of the route table goes on with.
macro_rules! go_on {
    ($($method:ident $name:ident)*) => {
        impl Methods {
            $(
                pub(super) fn $method<H: Handler<T, AppState>, T: 'static>(mut self, handler: H) -> Self {
                    self.router = self.router.on(MethodFilter::$name, handler);
                    self.names.push(stringify!($name));
                    self
                }
            )*
        }
    };
}

go_on! { get GET head HEAD post POST put PUT patch PATCH delete DELETE }

impl Methods {
    /// Answers 404 to every other method, as the reference does at some paths.
    pub(super) fn or_missing(mut self) -> Self {
        self.others = Others::Missing;
        self
    }

    /// Lets a 405 name only these methods, as the reference does at one path.
    pub(super) fn naming(mut self, names: &'static str) -> Self {
        self.others = Others::Named(names);
        self
    }

    fn into_router(mut self) -> MethodRouter<AppState> {
        self.names.sort_by_key(|name| ORDER.iter().position(|known| known == name));
        let allow = match self.others {
            Others::Allowed => Some(self.names.join(", ")),
            Others::Named(names) => Some(names.to_owned()),
            Others::Missing => None,
        };
        let refuse = move |method: Method| async move { refuse(&method, allow.as_deref()) };
        let router = self.router.fallback(refuse.clone());
        // HEAD is no verb of the Image API, although the library serves it wherever it serves GET.
        if self.names.contains(&"HEAD") { router } else { router.head(refuse) }
    }
}

fn refuse(method: &Method, allow: Option<&str>) -> Response {
    let Some(allow) = allow else { return error::missing().into_response() };
    let text = format!("The method {method} is not allowed for this resource.");
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    response.headers_mut().extend(HeaderValue::from_str(allow).map(|allow| (ALLOW, allow)));
    response
}
