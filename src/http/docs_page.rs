//! The page that shows the OpenAPI document: plain HTML made once at start,
//! so that it works with no network and no script.

use std::fmt::Write;

use serde_json::Value;

/// What the page may load: nothing but its own style.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border-bottom: 1px solid #8884; padding: .3rem 0; }
summary { cursor: pointer; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { background: #8881; padding: .6rem; overflow-x: auto; }
.method { display: inline-block; width: 4.5rem; font-weight: bold; }
.who { opacity: .7; }
table { border-collapse: collapse; }
td { border: 1px solid #8884; padding: .2rem .5rem; vertical-align: top; }
";

/// The page for `document`.
pub(super) fn render(document: &Value) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    let title = text(&document["info"]["title"]);
    put(&mut html, &["<title>", &title, " API</title>\n<style>", STYLE, "</style>\n"]);
    put(&mut html, &["<h1>", &title, " API</h1>\n<p>", &text(&document["info"]["description"])]);
    html.push_str(" <a href=\"/openapi.json\">openapi.json</a></p>\n");

    let mut operations: Vec<(String, &str, &str, &Value)> = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            operations.push((text(&operation["tags"][0]), path, method, operation));
        }
    }
    operations.sort_by(|a, b| a.0.cmp(&b.0));
    let mut last = None;
    for (tag, path, method, operation) in &operations {
        if last.replace(tag) != Some(tag) {
            put(&mut html, &["<h2>", tag, "</h2>\n"]);
        }
        show_operation(&mut html, method, path, operation);
    }

    html.push_str("<h2>schemas</h2>\n");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let name = escape(name);
        put(&mut html, &["<details id=\"", &name, "\"><summary><code>", &name]);
        html.push_str("</code></summary>");
        show_schema(&mut html, schema);
        html.push_str("</details>\n");
    }
    html.push_str("</html>\n");
    html
}

fn show_operation(html: &mut String, method: &str, path: &str, operation: &Value) {
    let who =
        if operation["security"].as_array().is_some_and(Vec::is_empty) { "public" } else { "" };
    put(
        html,
        &["<details><summary><span class=\"method\">", &method.to_uppercase(), "</span><code>"],
    );
    put(html, &[&escape(path), "</code> ", &text(&operation["summary"])]);
    put(html, &[" <span class=\"who\">", who, "</span></summary>\n"]);
    if operation["description"].is_string() {
        put(html, &["<p>", &text(&operation["description"]), "</p>\n"]);
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let mut rows = String::new();
    for parameter in parameters {
        put(&mut rows, &["<tr><td><code>", &text(&parameter["name"]), "</code><td>"]);
        put(&mut rows, &[&text(&parameter["in"]), "<td><code>"]);
        put(&mut rows, &[&escape(&parameter["schema"].to_string()), "</code><td>"]);
        put(&mut rows, &[&text(&parameter["description"]), "</tr>"]);
    }
    if !rows.is_empty() {
        put(html, &["<table>", &rows, "</table>\n"]);
    }
    for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        put(html, &["<p>Body: ", &escape(kind), "</p>"]);
        show_schema(html, &content["schema"]);
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        put(html, &["<p><b>", &escape(status), "</b> ", &text(&response["description"]), "</p>"]);
        for (kind, content) in response["content"].as_object().into_iter().flatten() {
            if kind == "application/json" {
                show_schema(html, &content["schema"]);
            } else {
                put(html, &["<p>", &escape(kind), "</p>"]);
            }
        }
    }
    html.push_str("</details>\n");
}

/// A link to a schema with a name, or the schema itself.
fn show_schema(html: &mut String, schema: &Value) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        put(html, &["<p><a href=\"#", &name, "\"><code>", &name, "</code></a></p>"]);
    } else {
        let pretty = format!("{schema:#}");
        put(html, &["<pre>", &escape(&pretty), "</pre>"]);
    }
}

fn put(html: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| html.push_str(part));
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

/// `text` for a page, with nothing in it that could be taken for HTML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '"' | '\'' => {
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_shows_every_operation_and_runs_nothing() {
        let document = json!({
            "info": { "title": "T", "description": "<script>alert(1)</script>" },
            "paths": { "/a/{id}": { "get": {
                "tags": ["things"], "summary": "Reads a thing",
                "parameters": [{ "name": "limit", "in": "query", "schema": { "type": "integer" } }],
                "responses": { "200": { "description": "", "content": {
                    "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } },
                }}},
            }}},
            "components": { "schemas": { "Thing": { "type": "object" } } },
        });
        let page = render(&document);
        for part in ["/a/{id}", "Reads a thing", "limit", "href=\"#Thing\"", "id=\"Thing\""] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script"));
        assert!(!page.contains("http://") && !page.contains("https://"));
    }
}
