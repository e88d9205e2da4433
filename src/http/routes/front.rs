//! The front page: how to set the daemon up, until that is done.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::login::{cookie, form};
use crate::base::error::{Error, Kind, Result};
use crate::discovery;
use crate::http::api::Api;
use crate::http::auth::setup::{self, FirstLogin};
use crate::http::docs_page::escape;
use crate::http::error::{ApiError, Detail};
use crate::store::UserUpdate;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(page)).routes(routes!(set_up))
}

/// What the pages may load and where their form may go: nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 17px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 3rem auto; padding: 0 1rem; }
label { display: block; margin: 1rem 0; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem; }
button { font: inherit; padding: .5rem 1.5rem; }
.problem { color: #c22; font-weight: bold; }
small { opacity: .8; }
";

/// Names the daemon to whoever opens it in a browser; before anybody has chosen
/// the administrator's password, asks for one.
#[utoipa::path(get, path = "/", tag = "system", security(()),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)))]
async fn page(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let body = match setup::first_login(api.store.as_ref()).await? {
        Some(login) => setup_form(&api, &login, ""),
        None => "<p>The daemon is running. <a href=\"/health\">Health</a>, \
                 <a href=\"/docs\">API</a></p>\n"
            .to_owned(),
    };
    Ok(html(&api, StatusCode::OK, &body))
}

/// The form of the setup page.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema: `form` reads both encodings")]
struct SetupForm {
    /// The password that the daemon has shown.
    first_password: String,
    /// The administrator's password from now on.
    password: String,
    /// The same again.
    again: String,
    /// What the device is called on the network; empty: as before.
    name: Option<String>,
}

/// Sets the administrator's password and names the device, for whoever knows the
/// password that the daemon has shown; only until that is done once.
#[utoipa::path(post, path = "/setup", tag = "system", security(()),
    request_body(content = SetupForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Done, and logged in: on to the front page"),
        (status = 400, description = "Something is wrong: the page says what",
            content_type = "text/html", body = String),
        (status = 408, description = "The form did not arrive in time", body = Detail),
        (status = 409, description = "It was done before",
            content_type = "text/html", body = String),
        (status = 413, description = "The form is too large", body = Detail),
        (status = 429, description = "Too many wrong passwords",
            content_type = "text/html", body = String),
    ))]
async fn set_up(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(login) = setup::first_login(api.store.as_ref()).await? else {
        let body = "<p>The password was chosen before. An administrator can change it, and so \
                    can <code>friend-lite user passwd</code> on the machine.</p>\n";
        return Ok(html(&api, StatusCode::CONFLICT, body));
    };
    let remote = api.auth.client_address(peer.ip(), request.headers());
    let fields = form(request).await?;
    let field = |name: &str| {
        let value = fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value);
        value.map_or("", String::as_str)
    };
    let (password, name) = (field("password"), field("name").trim());
    let done = async {
        api.auth.login(&login.email, field("first_password"), remote).await?;
        if password != field("again") {
            return Err(Error::new(Kind::BadInput, "the two passwords differ"));
        }
        if password == login.password {
            return Err(Error::new(Kind::BadInput, "choose another password than the first one"));
        }
        if !name.is_empty() {
            discovery::check_name(name)?;
        }
        let hash = api.auth.hash(password).await?;
        choose(&api, &login, hash, name).await?;
        api.auth.login(&login.email, password, remote).await
    };
    match done.await {
        Ok(token) => {
            let lifetime = api.config.auth.token_lifetime.get().as_secs();
            let to: (HeaderName, _) = (header::LOCATION, "/");
            let cookie = cookie(&api, token.expose(), lifetime)?;
            Ok((StatusCode::SEE_OTHER, [to], [cookie]).into_response())
        }
        Err(error) => {
            let (status, said) = match error.kind() {
                Kind::Unauthorized => {
                    (StatusCode::BAD_REQUEST, "that is not the password that was shown")
                }
                Kind::BadInput => (StatusCode::BAD_REQUEST, error.message()),
                Kind::Busy => (StatusCode::TOO_MANY_REQUESTS, error.message()),
                _ => return Err(error.into()),
            };
            Ok(html(&api, status, &setup_form(&api, &login, said)))
        }
    }
}

/// Puts what was chosen in force.
async fn choose(api: &Api, login: &FirstLogin, hash: String, name: &str) -> Result<()> {
    let store = api.store.as_ref();
    let user = store
        .user_by_email(&login.email)
        .await?
        .ok_or_else(|| Error::new(Kind::Conflict, "the administrator is gone"))?;
    if !name.is_empty() {
        store.set_setting(discovery::NAME_SETTING, Some(name)).await?;
        api.name.send_replace(name.to_owned());
    }
    let update = UserUpdate { password_hash: Some(hash), ..UserUpdate::default() };
    store.update_user(&user.id, update).await?;
    setup::forget(store).await?;
    api.auth.audit(Some(&user.id), "set-up", &login.email).await;
    Ok(())
}

fn setup_form(api: &Api, login: &FirstLogin, problem: &str) -> String {
    let problem = match problem {
        "" => String::new(),
        text => format!("<p class=\"problem\">{}.</p>\n", escape(text)),
    };
    // A name in the configuration stands.
    let name = match api.config.discovery.name.as_str() {
        "" => format!(
            "<label>Name of this device<input name=\"name\" maxlength=\"63\" value=\"{}\"></label>\n",
            escape(&api.name.borrow())
        ),
        _ => String::new(),
    };
    format!(
        "<p>It records already. Choose the password of its administrator, <b>{email}</b>.</p>\n\
         {problem}<form method=\"post\" action=\"/setup\">\n\
         <label>First password<input type=\"password\" name=\"first_password\" required \
         autocomplete=\"off\"><small>It is in the log of the first start (<code>journalctl -u \
         friend-lite</code>), and <code>sudo friend-lite first-run</code> shows it.</small></label>\n\
         <label>Your password<input type=\"password\" name=\"password\" required minlength=\"8\" \
         autocomplete=\"new-password\"></label>\n\
         <label>Your password again<input type=\"password\" name=\"again\" required minlength=\"8\" \
         autocomplete=\"new-password\"></label>\n\
         {name}<button>Set up</button>\n</form>\n",
        email = escape(&login.email),
    )
}

fn html(api: &Api, status: StatusCode, body: &str) -> Response {
    let name = escape(&api.name.borrow());
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{name}</title>\n<style>{STYLE}</style>\n<h1>{name}</h1>\n{body}</html>\n"
    );
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page).into_response()
}
