use super::super::check::sha256;
use super::super::https::tests::{Manner, Server, serve};
use super::super::progress::Quiet;
use super::*;
use std::sync::Mutex;

const CONTENT: &[u8] = b"the weights of a small model";

fn catalog(urls: &[&str], path: &Path) -> Catalog {
    let hash = sha256(&mut &CONTENT[..]).unwrap();
    let bytes = CONTENT.len();
    let mut text = format!(
        r#"[[model]]
        name = "small"
        kind = "stt"
        file = "small.bin"
        bytes = {bytes}
        sha256 = "{hash}"
        licence = "MIT"
        least_memory_mib = 1
        [[model.source]]
        kind = "path"
        path = "{}"
        "#,
        path.display()
    );
    for url in urls {
        text.push_str(&format!(
            "[[model.source]]\nkind = \"https\"\nfiles = [{{ name = \"small.bin\", bytes = {bytes}, url = \"{url}\" }}]\n"
        ));
    }
    Catalog::parse(&text).unwrap()
}

async fn get(catalog: &Catalog, dir: &Path, order: &[Place]) -> Result<PathBuf> {
    let quiet: Arc<dyn Progress> = Arc::new(Quiet);
    fetch(catalog, catalog.get("small").unwrap(), dir, order, MARGIN, &quiet).await
}

async fn good() -> Server {
    serve(CONTENT.to_vec(), Manner::default()).await
}

/// A server whose file has the right size and the wrong content.
async fn wrong() -> Server {
    serve(CONTENT.to_ascii_uppercase(), Manner::default()).await
}

/// The names of the files in `dir`, but for locks.
fn files(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

#[tokio::test]
async fn the_next_source_is_tried_when_one_has_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (wrong().await, good().await);
    let catalog = catalog(&[&bad.url, &good.url], Path::new("/no/such/file"));
    let path = get(&catalog, dir.path(), &[Place::Path, Place::Https]).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), CONTENT);
    assert_eq!(files(dir.path()), ["small.bin"]);
    assert_eq!(bad.starts.lock().unwrap().len(), 1);
    get(&catalog, dir.path(), &[Place::Https]).await.unwrap();
    assert_eq!(good.starts.lock().unwrap().len(), 1, "what is there is not fetched again");
}

#[tokio::test]
async fn every_failure_is_named_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let bad = wrong().await;
    let gone = serve(Vec::new(), Manner { missing: true, ..Manner::default() }).await;
    let catalog = catalog(&[&bad.url, &gone.url], Path::new("/no/such/file"));
    let error = get(&catalog, dir.path(), &[Place::Path, Place::Https]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    for part in
        ["/no/such/file: no such file", "SHA-256", "404", "--from DIR", "models fetch small"]
    {
        assert!(error.message().contains(part), "{part} is not in {error}");
    }
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn a_rest_of_another_file_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.bin.part"), b"garbage").unwrap();
    let good = good().await;
    let catalog = catalog(&[&good.url], Path::new("/no/such/file"));
    get(&catalog, dir.path(), &[Place::Https]).await.unwrap();
    assert_eq!(*good.starts.lock().unwrap(), [7, 0]);
    assert_eq!(files(dir.path()), ["small.bin"]);
}

#[tokio::test]
async fn a_directory_or_a_path_will_do_without_a_network() {
    let (from, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = from.path().join("small.bin");
    std::fs::write(&place, CONTENT).unwrap();
    let catalog = catalog(&[], &place);
    get(&catalog, dir.path(), &[Place::Directory(from.path().into())]).await.unwrap();
    assert_eq!(files(dir.path()), ["small.bin"]);
    std::fs::remove_file(dir.path().join("small.bin")).unwrap();
    get(&catalog, dir.path(), &[Place::Path]).await.unwrap();
    assert_eq!(files(dir.path()), ["small.bin"]);
    let error = get(&catalog, &dir.path().join("sub"), &[Place::Https]).await.unwrap_err();
    assert!(error.message().contains("models.sources"));
}

#[tokio::test]
async fn what_needs_converting_is_converted_and_cleared_away() {
    let (work, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut servers, mut listed) = (Vec::new(), String::new());
    for (name, content) in convert::bert_files() {
        std::fs::write(work.path().join(name), &content).unwrap();
        let bytes = content.len();
        let server = serve(content, Manner::default()).await;
        listed += &format!("{{ name = \"{name}\", bytes = {bytes}, url = \"{}\" }},", server.url);
        servers.push(server);
    }
    let mut expected = Vec::new();
    convert::bert_gguf(work.path(), "t", "mit", &mut expected).unwrap();
    let catalog = Catalog::parse(&format!(
        r#"[[model]]
        name = "small"
        kind = "embed"
        file = "small.gguf"
        bytes = {}
        sha256 = "{}"
        licence = "MIT"
        least_memory_mib = 1
        [[model.source]]
        kind = "https"
        convert = {{ by = "bert-gguf", title = "t" }}
        files = [{listed}]"#,
        expected.len(),
        sha256(&mut expected.as_slice()).unwrap(),
    ))
    .unwrap();
    let path = get(&catalog, dir.path(), &[Place::Https]).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), expected);
    assert_eq!(files(dir.path()), ["small.gguf"]);
}

/// Remembers the steps it was told of.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Progress for Steps {
    fn step(&self, _: &str, what: &str, _: u64) {
        self.0.lock().unwrap().push(what.to_owned());
    }
    fn at(&self, _: u64) {}
}

#[tokio::test]
async fn a_second_fetch_waits_for_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let good = good().await;
    let catalog = catalog(&[&good.url], Path::new("/no/such/file"));
    let entry = catalog.get("small").unwrap();
    let held = lock(entry, dir.path(), &Report::quiet()).await.unwrap();
    let steps = Arc::new(Steps::default());
    let progress: Arc<dyn Progress> = steps.clone();
    let fetching = fetch(&catalog, entry, dir.path(), &[Place::Https], MARGIN, &progress);
    tokio::pin!(fetching);
    let soon = tokio::time::timeout(Duration::from_millis(500), &mut fetching).await;
    assert!(soon.is_err() && good.starts.lock().unwrap().is_empty());
    assert!(steps.0.lock().unwrap()[0].contains("waiting"));
    drop(held);
    fetching.await.unwrap();
}

#[test]
fn places_are_read_from_the_configuration() {
    assert_eq!("https".parse::<Place>().unwrap(), Place::Https);
    assert_eq!("/mnt/usb".parse::<Place>().unwrap(), Place::Directory("/mnt/usb".into()));
    assert_eq!("ftp".parse::<Place>().unwrap_err().kind(), Kind::Config);
    for source in crate::config::Config::default().models.sources {
        source.parse::<Place>().unwrap();
    }
}
