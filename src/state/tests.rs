//! Tests of the state directory.

use super::*;
use std::sync::Arc;
use std::time::Duration;

const FORM: Form = Form { name: "test", version: 1 };

/// A directory that is removed with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("trunkline-state-{name}-{id}"));
        std::fs::remove_dir_all(&path).ok();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn it_is_one_process_s_at_a_time_and_nobody_else_s_business() {
    let place = Place::new("lock");
    let path = place.0.join("deep/er");
    let first = StateDir::open(&path).unwrap();
    let error = StateDir::open(&path).unwrap_err();
    assert!(error.to_string().contains("another gateway"), "{error}");
    assert!(error.to_string().contains("deep/er"), "{error}");
    first.replace("f", &FORM.frame(b"x")).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!((mode(&path.join("f")), mode(&path.join(LOCK))), (0o600, 0o600));
    drop(first);
    let second = StateDir::open(&path).unwrap();
    assert_eq!(second.read("f", FORM).as_deref(), Some(&b"x"[..]));
    assert_eq!(second.read("g", FORM), None);
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let place = Place::new("file");
    std::fs::write(&place.0, "x").unwrap();
    assert!(StateDir::open(&place.0).is_err());
    assert!(StateDir::open(&place.0.join("below")).is_err());
    std::fs::remove_file(&place.0).unwrap();
}

#[test]
fn what_cannot_be_used_is_set_aside_and_only_some_of_it_is_kept() {
    let place = Place::new("aside");
    let directory = StateDir::open(&place.0).unwrap();
    let aside = || {
        let names = directory.names();
        names.into_iter().filter(|name| name.contains(ASIDE)).collect::<Vec<_>>()
    };
    for n in 0..STATE_SET_ASIDE_MAX + 3 {
        std::fs::write(place.0.join("f"), format!("{n}")).unwrap();
        assert_eq!(directory.read("f", FORM), None);
        assert!(!place.0.join("f").exists());
    }
    let mut kept = aside();
    kept.sort();
    assert!(kept.len() <= STATE_SET_ASIDE_MAX, "{kept:?}");
    let last = std::fs::read_to_string(place.0.join(kept.last().unwrap())).unwrap();
    assert_eq!(last, (STATE_SET_ASIDE_MAX + 2).to_string());
    std::fs::create_dir(place.0.join("f")).unwrap();
    assert_eq!(directory.read("f", FORM), None);
    assert!(!place.0.join("f").exists());
    let large = File::create(place.0.join("f")).unwrap();
    large.set_len(STATE_FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(directory.read("f", FORM), None);
    assert!(!place.0.join("f").exists());
}

#[test]
fn the_session_key_is_that_of_the_first_start() {
    let place = Place::new("key");
    let first = StateDir::open(&place.0).unwrap();
    let key = first.session_key().unwrap();
    assert_eq!(first.session_key().unwrap(), key);
    std::fs::write(place.0.join(SESSION_KEY), "garbage").unwrap();
    let other = first.session_key().unwrap();
    assert_ne!(other, key);
    assert_eq!(first.session_key().unwrap(), other);
}

#[test]
fn half_written_files_of_another_start_are_swept() {
    let place = Place::new("sweep");
    drop(StateDir::open(&place.0).unwrap());
    std::fs::write(place.0.join(".f.77.tmp"), "half").unwrap();
    let directory = StateDir::open(&place.0).unwrap();
    assert_eq!(directory.names(), [LOCK]);
}

#[test]
fn ids_are_kept_in_many_lines_and_over_a_restart() {
    let place = Place::new("ids");
    let directory = Arc::new(StateDir::open(&place.0).unwrap());
    let (writer, joined) = start(directory.clone()).unwrap();
    let ids: Vec<Id> = (1..=50).map(|number| Id { number, expires: u64::MAX }).collect();
    let (last, others) = ids.split_last().unwrap();
    for id in others {
        writer.keep(*id);
    }
    writer.keep(*last).wait(Duration::from_secs(20));
    assert_eq!(directory.ids(), ids);
    writer.keep(Id { number: 99, expires: 1 }).wait(Duration::from_secs(20));
    writer.replace("f", FORM.frame(b"old"));
    writer.replace("f", FORM.frame(b"new"));
    // The thread ends after the writes that it was given.
    drop(writer);
    drop(joined);
    assert_eq!(directory.read("f", FORM).as_deref(), Some(&b"new"[..]));
    assert_eq!(directory.ids(), ids);
    let path = place.0.join("ended-sessions");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 51, "what has expired is gone: {text}");
    std::fs::write(&path, text[..text.len() - 5].to_owned() + "\nnonsense\n").unwrap();
    assert_eq!(directory.ids(), ids[..49]);
    assert!(directory.names().iter().any(|name| name.contains(ASIDE)));
    assert_eq!(directory.ids(), ids[..49]);
}

#[test]
fn a_disk_that_refuses_is_no_end() {
    let place = Place::new("refuses");
    let directory = Arc::new(StateDir::open(&place.0).unwrap());
    let (writer, joined) = start(directory.clone()).unwrap();
    std::fs::remove_dir_all(&place.0).unwrap();
    writer.keep(Id { number: 1, expires: u64::MAX }).wait(Duration::from_secs(20));
    std::fs::create_dir_all(&place.0).unwrap();
    writer.keep(Id { number: 2, expires: u64::MAX }).wait(Duration::from_secs(20));
    let numbers: Vec<u128> = directory.ids().iter().map(|id| id.number).collect();
    assert_eq!(numbers, [1, 2], "what was refused is written with the next");
    drop(writer);
    drop(joined);
}

#[test]
fn more_than_can_be_read_is_not_written() {
    let place = Place::new("large");
    let directory = StateDir::open(&place.0).unwrap();
    directory.replace("f", b"old").unwrap();
    let n = usize::try_from(STATE_FILE_BYTES_MAX).unwrap() + 1;
    assert_eq!(
        directory.replace("f", &vec![0; n]).unwrap_err().kind(),
        ErrorKind::FileTooLarge
    );
    assert_eq!(std::fs::read(place.0.join("f")).unwrap(), b"old");
}

#[test]
fn one_file_that_fails_holds_up_no_other() {
    let place = Place::new("one-fails");
    let directory = Arc::new(StateDir::open(&place.0).unwrap());
    let (writer, joined) = start(directory.clone()).unwrap();
    // This name sorts first, and is longer than a file's name may be.
    writer.replace(&"a".repeat(300), FORM.frame(b"x"));
    for body in [b"1", b"2", b"3"] {
        writer.replace("f", FORM.frame(body));
        let wanted = FORM.frame(body);
        let start = std::time::Instant::now();
        while std::fs::read(place.0.join("f")).ok().as_ref() != Some(&wanted) {
            // The other file is tried again after 30 s.
            assert!(start.elapsed() < Duration::from_secs(20), "{body:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(writer);
    drop(joined);
}

#[test]
fn what_changes_all_the_time_is_written_ever_more_rarely_and_whole_at_the_end() {
    let place = Place::new("flaps");
    let directory = Arc::new(StateDir::open(&place.0).unwrap());
    let (writer, joined) = start(directory.clone()).unwrap();
    std::fs::write(place.0.join("superfluous"), "").unwrap();
    writer.replace_then_remove("f", FORM.frame(b"first"), vec!["superfluous".to_owned()]);
    let start = std::time::Instant::now();
    let (mut n, mut seen, mut last) = (0_u32, Vec::new(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        n += 1;
        last = n;
        writer.replace("f", FORM.frame(n.to_string().as_bytes()));
        // Ended ids are not delayed by files.
        writer.keep(Id { number: n.into(), expires: u64::MAX }).wait(Duration::from_secs(20));
        assert_eq!(directory.ids().len(), usize::try_from(n).unwrap());
        let now = directory.read("f", FORM);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The writes come after 250 ms, then 500, 1000, 2000 after the one before; without the pace
    // there would be sixteen.
    assert!(seen.len() <= 7, "{seen:?}");
    drop(writer);
    drop(joined);
    assert_eq!(directory.read("f", FORM), Some(last.to_string().into_bytes()));
    assert!(!place.0.join("superfluous").exists());
}
