//! Messages between two ends of a socket, sound and hostile.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn found(inlined: usize) -> Found {
    let inlined =
        (0..inlined).map(|depth| Inlined { name: format!("f{depth}"), source: Some("a.c".to_owned()) });
    Found { name: "f".to_owned(), address: 7, source: None, inlined: inlined.collect() }
}

fn pass(answer: &Answer) -> io::Result<Answer> {
    let (here, there) = UnixStream::pair()?;
    // The largest is more than a socket holds.
    std::thread::scope(|scope| {
        scope.spawn(move || send_answer(&there, answer));
        receive_answer(&here, soon())
    })
}

#[test]
fn requests_arrive_whole_with_their_files() {
    let (here, there) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let other = tempfile::tempfile().unwrap();
    let request = Request { file: 1, addresses: vec![u64::MAX; MAX_ADDRESSES], ..Request::default() };
    send_request(&here, &request, &[file.as_fd(), other.as_fd()]).unwrap();
    send_request(&here, &Request { file: 2, ..Request::default() }, &[other.as_fd()]).unwrap();
    drop(here);
    let inode = |file: &dyn AsFd| rustix::fs::fstat(file.as_fd()).unwrap().st_ino;
    let (first, files) = receive_request(&there).unwrap().unwrap();
    assert_eq!((first, files.len()), (request, 2));
    assert_eq!((inode(&files[0]), inode(&files[1])), (inode(&file), inode(&other)));
    let (second, files) = receive_request(&there).unwrap().unwrap();
    assert_eq!((second.file, files.len()), (2, 1));
    assert_eq!(inode(&files[0]), inode(&other));
    assert!(receive_request(&there).unwrap().is_none());
}

#[test]
fn the_largest_answer_passes() {
    let name = "n".repeat(MAX_NAME);
    let source = Some("s".repeat(MAX_SOURCE));
    let inlined = vec![Inlined { name: name.clone(), source: source.clone() }; MAX_INLINED];
    let found = Found { name, address: u64::MAX, source, inlined };
    let answer = Answer::new(Some(found), &REASONS, true, u64::MAX);
    assert_eq!(pass(&answer).unwrap(), answer);
    assert_eq!(answer.reasons().collect::<Vec<_>>(), REASONS);
}

#[test]
fn what_no_reader_would_say_is_refused() {
    assert!(pass(&Answer::new(Some(found(MAX_INLINED)), &[], false, 0)).is_ok());
    assert!(pass(&Answer::new(Some(found(MAX_INLINED + 1)), &[], false, 0)).is_err());
    for name in [String::new(), "n".repeat(MAX_NAME + 1)] {
        let found = Found { name: name.clone(), ..found(1) };
        assert!(pass(&Answer::new(Some(found), &[], false, 0)).is_err());
        let mut inlined = self::found(1);
        inlined.inlined[0].name = name;
        assert!(pass(&Answer::new(Some(inlined), &[], false, 0)).is_err());
    }
    for reasons in [vec![99], vec![0; 5]] {
        assert!(pass(&Answer { reasons, ..Answer::default() }).is_err());
    }
    let long = Found { source: Some("s".repeat(MAX_SOURCE + 1)), ..found(0) };
    assert!(pass(&Answer::new(Some(long), &[], false, 0)).is_err());
}

#[test]
fn nobody_waits_for_a_rest_that_does_not_come() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let until = Instant::now() + Duration::from_millis(50);
    there.write_all(&[200, 0, 0, 0, 1, 2]).unwrap();
    assert_eq!(receive_answer(&here, until).unwrap_err().kind(), io::ErrorKind::TimedOut);
    let (here, mut there) = UnixStream::pair().unwrap();
    // A length that nobody could hold.
    there.write_all(&[255; 4]).unwrap();
    assert_eq!(receive_answer(&here, soon()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    let (here, there) = UnixStream::pair().unwrap();
    drop(there);
    assert_eq!(receive_answer(&here, soon()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_hang(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        framed.extend(bytes);
        there.write_all(&framed).unwrap();
        drop(there);
        let _ = receive_answer(&here, soon());
    }
}
