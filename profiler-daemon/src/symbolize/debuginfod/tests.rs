//! Against a server on loopback that plays every part a server can.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::*;

/// Bytes of an ELF file with a build id: a C compiler's.
fn elf(dir: &std::path::Path, build_id: &str) -> Vec<u8> {
    let (source, path) = (dir.join("p.c"), dir.join("p"));
    std::fs::write(&source, "int main(void) { return 0; }").unwrap();
    let id = format!("-Wl,--build-id=0x{build_id}");
    let status =
        std::process::Command::new("gcc").arg(id).arg("-o").arg(&path).arg(&source).status().unwrap();
    assert!(status.success());
    std::fs::read(path).unwrap()
}

/// A server that answers by path; says which paths it was asked for.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, paths) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = request.split(' ').nth(1).unwrap().to_owned();
            if asked.send(path.clone()).is_err() {
                return;
            }
            answer(&path, &mut stream);
        }
    });
    (url, paths)
}

fn whole(stream: &mut TcpStream, status: &str, body: &[u8]) {
    // A client that has enough hangs up.
    let _gone =
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())
            .and_then(|()| stream.write_all(body));
}

fn start(urls: Vec<String>, dir: &std::path::Path, cache_bytes: u64) -> Debuginfod {
    Debuginfod::start(Options { urls, cache_dir: dir.join("cache"), cache_bytes }).unwrap()
}

/// Asks, and waits until there is an answer.
fn ask(client: &mut Debuginfod, build_id: &str) -> Option<Vec<u8>> {
    let id: Arc<str> = build_id.into();
    let begin = Instant::now();
    loop {
        match client.get(&id) {
            Answer::File(fd) => {
                let mut bytes = Vec::new();
                std::fs::File::from(fd).read_to_end(&mut bytes).unwrap();
                return Some(bytes);
            }
            Answer::Absent => return None,
            Answer::Pending => assert!(begin.elapsed() < Duration::from_secs(60), "never answered"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn losses(client: &Debuginfod) -> Vec<(&'static str, u64)> {
    let mut loss = Loss::default();
    client.take_loss(&mut loss);
    loss.iter().map(|line| (line.reason, line.count)).collect()
}

#[test]
fn a_file_comes_once_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = elf(dir.path(), "abcd01");
    let body = file.clone();
    let (url, paths) = serve(move |path, stream| match path {
        "/base/buildid/abcd01/debuginfo" => whole(stream, "200 OK", &body),
        _ => whole(stream, "404 Not Found", b"no"),
    });
    let urls = vec![format!("{url}/base/")];
    let mut client = start(urls.clone(), dir.path(), 64 << 20);
    assert!(!client.has_news());
    assert!(matches!(client.get(&"abcd01".into()), Answer::Pending), "nobody waits");
    assert_eq!(ask(&mut client, "abcd01").unwrap(), file);
    assert!(client.has_news() && !client.has_news() && client.has("abcd01"));
    assert_eq!(ask(&mut client, "ffff"), None);
    assert_eq!(ask(&mut client, "ffff"), None, "remembered");
    assert_eq!(losses(&client), []);
    drop(client);

    let mut client = start(urls, dir.path(), 64 << 20);
    assert_eq!(ask(&mut client, "abcd01").unwrap(), file, "from disk");
    let asked: Vec<String> = paths.try_iter().collect();
    assert_eq!(asked, ["/base/buildid/abcd01/debuginfo", "/base/buildid/ffff/debuginfo"]);
}

#[test]
fn the_next_server_is_asked_where_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = elf(dir.path(), "abcd01");
    let body = file.clone();
    let (broken, _asked_broken) = serve(|_, stream| whole(stream, "500 Oh", b"no"));
    let (empty, _asked_empty) = serve(|_, stream| whole(stream, "404 Not Found", b"no"));
    let (good, _asked_good) = serve(move |_, stream| whole(stream, "200 OK", &body));
    // The port of a listener that is gone again: nobody is there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = vec![format!("http://{gone}"), broken, empty, good];
    let mut client = start(urls, dir.path(), 64 << 20);
    assert_eq!(ask(&mut client, "abcd01").unwrap(), file);
    assert_eq!(losses(&client), [(FAILED, 2)]);
}

#[test]
fn what_is_too_large_wrong_or_cut_off_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = elf(dir.path(), "abcd01");
    let (url, _paths) = serve(move |path, stream| match path.split('/').nth(2).unwrap() {
        // Another file than the one that was asked for.
        "aa" => whole(stream, "200 OK", &file),
        "bb" => whole(stream, "200 OK", b"<html>"),
        "cc" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file)).unwrap();
        }
        // Does not end by itself, nor say how long it will be.
        _ => {
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[0; 4096]).is_ok() {}
        }
    });
    let mut client = start(vec![url], dir.path(), 1 << 20);
    for (count, id) in (1..).zip(["aa", "bb", "cc", "dd"]) {
        assert_eq!(ask(&mut client, id), None, "{id}");
        assert_eq!(losses(&client), [(FAILED, 1)], "{id}, number {count}");
        assert_eq!(std::fs::read_dir(dir.path().join("cache")).unwrap().count(), 0, "{id}");
    }
}

#[test]
fn a_server_that_hangs_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (url, paths) = serve(|_, stream| {
        let _gone = stream.read(&mut [0]);
    });
    let client = start(vec![url], dir.path(), 1 << 20);
    let id = |number: usize| Arc::<str>::from(format!("{number:04x}"));
    assert!(matches!(client.get(&id(0)), Answer::Pending));
    paths.recv().unwrap();
    let answers = (1..=QUEUE + 3).map(|number| client.get(&id(number)));
    let pending = answers.filter(|answer| matches!(answer, Answer::Pending)).count();
    assert_eq!((pending, losses(&client)), (QUEUE, vec![(OVERFLOW, 3)]));
    assert!(client.is_pending("0000") && !client.has("0000"));
}
