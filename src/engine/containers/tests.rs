//! Tests of the file tree of containers: who finds what, who waits for whom, and what is cleared.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

struct Scratch {
    directory: tempfile::TempDir,
    store: Containers,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Self::open(&directory);
        Self { directory, store }
    }

    fn open(directory: &tempfile::TempDir) -> Containers {
        Containers::open(fs::File::open(directory.path()).unwrap().as_fd()).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn statuses(&self) -> Vec<(String, Status)> {
        let listing = self.store.list().unwrap();
        assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
        listing.containers.into_iter().map(|(record, status)| (record.name.to_string(), status)).collect()
    }

    fn sweep(&self) {
        let sweep = self.store.sweep().unwrap();
        assert!(sweep.orphans.is_empty() && sweep.unfinished.is_empty());
        assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
    }

    fn run(&self, name: &str, remove: bool) -> (Container, Supervision) {
        let draft = self.store.begin(chosen(name)).unwrap();
        let record = Record { remove, ..record(&draft) };
        draft.commit(&record, Some(7)).unwrap()
    }
}

fn chosen(name: &str) -> Naming {
    Naming::Chosen(name.parse().unwrap())
}

fn record(draft: &Draft<'_>) -> Record {
    Record {
        format: record::FORMAT,
        id: *draft.id(),
        name: draft.name().clone(),
        created: record::now(),
        image: "oci:image".into(),
        image_id: None,
        mounted_images: Vec::new(),
        ids: None,
        layers: Vec::new(),
        command: vec!["true".into()],
        labels: BTreeMap::new(),
        remove: false,
        detached: false,
        interactive: false,
        terminal: false,
        stop_signal: None,
        stop_timeout_seconds: None,
        home_is_made: false,
        health: None,
        exposed: Vec::new(),
        options: crate::engine::options::RunOptions::default(),
    }
}

fn exit(code: u8) -> ExitRecord {
    ExitRecord { started: Some(7), finished: 9, code, ..ExitRecord::default() }
}

/// Leaves a draft as a SIGKILL would: the kernel closes its descriptors, and that is all.
fn kill(mut draft: Draft<'_>) {
    draft.supervision.take();
    draft.directory.take();
}

#[test]
fn a_life_from_creation_to_removal() {
    let scratch = Scratch::new();
    let draft = scratch.store.begin(chosen("web")).unwrap();
    draft.make_directories(&["bundle", "root", "root/upper"]).unwrap();
    assert_eq!(scratch.statuses(), [], "a draft is no container");
    let record = record(&draft);
    let (container, supervision) = draft.commit(&record, None).unwrap();
    assert_eq!(container.record().unwrap(), record);
    assert_eq!(container.status().unwrap(), Status::Running { started: None, restarts: 0 });
    assert!(container.supervise().unwrap().is_none());
    drop(supervision);
    assert_eq!(container.status().unwrap(), Status::Created);

    for code in [0, 3] {
        let supervision = container.supervise().unwrap().unwrap();
        container.note_start(&supervision, Start { time: 7, restarts: 0, stop: None }).unwrap();
        assert_eq!(container.status().unwrap(), Status::Running { started: Some(7), restarts: 0 });
        container.record_exit(&supervision, &exit(code)).unwrap();
        // Its end is on record, though somebody still looks after it, to whom it was handed on.
        let supervision = Supervision::from_fd(supervision.into_fd());
        assert_eq!(container.status().unwrap(), Status::Exited(exit(code)));
        assert!(container.supervise().unwrap().is_none());
        let between = ExitRecord { is_restarting: true, ..exit(code) };
        container.record_exit(&supervision, &between).unwrap();
        assert_eq!(container.status().unwrap(), Status::Restarting(between));
        container.record_exit(&supervision, &exit(code)).unwrap();
        drop(supervision);
        assert_eq!(container.status().unwrap(), Status::Exited(exit(code)));
    }

    let supervision = container.supervise().unwrap().unwrap();
    scratch.store.remove(&container, &supervision).unwrap();
    assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
    assert_eq!(container.record().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(scratch.store.remove(&container, &supervision).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let scratch = Scratch::new();
    let draft = scratch.store.begin(Naming::MadeUp).unwrap();
    draft.make_directories(&["root", "root/work"]).unwrap();
    drop(draft);
    assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
}

#[test]
fn a_name_is_had_by_one() {
    let scratch = Scratch::new();
    let winners: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = Scratch::open(&scratch.directory);
                    let draft = store.begin(chosen("web"))?;
                    let record = record(&draft);
                    draft.commit(&record, Some(1)).map(|(container, supervision)| (container.id, supervision))
                })
            })
            .collect();
        tries.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(winners.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in winners.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.kind(), Kind::Exists);
        assert!(error.report().contains("is already in use by container"), "{}", error.report());
    }
    assert_eq!(scratch.names("containers").len(), 1);
}

#[test]
fn references_are_found_when_they_mean_one() {
    let scratch = Scratch::new();
    let (web, _one) = scratch.run("web", false);
    let (_, _two) = scratch.run("db", false);
    // Seventeen containers have at least two that begin alike.
    let more: Vec<_> = (0..16).map(|number| scratch.run(&format!("c{number}"), false)).collect();
    for reference in ["web", web.id.as_str(), web.id.short()] {
        assert_eq!(scratch.store.find(reference).unwrap().id, web.id, "{reference}");
    }
    let ids = scratch.names("containers");
    let shared = (b'0'..=b'f').map(char::from).find(|digit| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1);
    let error = scratch.store.find(&shared.unwrap().to_string()).err().unwrap();
    assert!(error.report().contains("is ambiguous"), "{}", error.report());
    for unknown in ["we", "webs", "", ".", "..", "../names/web", "web/", "WEB", &"f".repeat(64), "\0"] {
        let error = scratch.store.find(unknown).err().unwrap();
        assert_eq!(error.report(), format!("no such container: {}", unknown.replace('\0', "\\u{0}")));
    }
    drop(more);
}

#[test]
fn a_name_precedes_the_beginning_of_an_id() {
    let scratch = Scratch::new();
    let (one, _held) = scratch.run("web", false);
    let (other, _held) = scratch.run(one.id.short(), false);
    assert_eq!(scratch.store.find(one.id.short()).unwrap().id, other.id);
    assert_eq!(scratch.store.find(one.id.as_str()).unwrap().id, one.id);
}

#[test]
fn a_killed_creation_is_swept_and_its_name_is_free() {
    for sweeps in [true, false] {
        let scratch = Scratch::new();
        let draft = scratch.store.begin(chosen("web")).unwrap();
        draft.make_directories(&["root"]).unwrap();
        kill(draft);
        if sweeps {
            scratch.sweep();
            assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
        }
        // Without a sweep, whoever wants the name clears what is in the way.
        scratch.run("web", false);
        assert_eq!(scratch.names("containers").len(), 1);
    }
}

#[test]
fn a_removal_is_finished_from_every_step() {
    // What a kill can leave: the record gone; the name, too; the content, too.
    for steps in 0..3 {
        let scratch = Scratch::new();
        let (container, supervision) = scratch.run("web", false);
        let folder = scratch.directory.path().join("containers").join(container.id.as_str());
        fs::remove_file(folder.join(RECORD)).unwrap();
        if steps > 0 {
            fs::remove_file(scratch.directory.path().join("names/web")).unwrap();
        }
        if steps > 1 {
            fs::remove_file(folder.join(SUPERVISOR)).unwrap();
        }
        assert_eq!(scratch.statuses(), []);
        if steps < 2 {
            scratch.sweep();
            assert!(folder.exists(), "somebody is at work there");
        }
        drop(supervision);
        scratch.sweep();
        assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty(), "step {steps}");
    }
}

#[test]
fn what_cannot_be_deleted_does_not_keep_its_name() {
    let scratch = Scratch::new();
    let draft = scratch.store.begin(chosen("web")).unwrap();
    draft.make_directories(&["root", "root/upper"]).unwrap();
    let stubborn = scratch.directory.path().join("containers").join(draft.id().as_str()).join("root");
    kill(draft);
    // EPERM for root, as the files of subordinate ids are EACCES for an ordinary user.
    let set = |flag: &str| {
        std::process::Command::new("chattr").arg(flag).arg(&stubborn).output().is_ok_and(|done| done.status.success())
    };
    if !set("+i") {
        #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
        return eprintln!("skipped: wants root, and chattr on this file system");
    }
    let held = scratch.run("web", false);
    let sweep = scratch.store.sweep().unwrap();
    assert_eq!(sweep.unfinished.len(), 1);
    assert_eq!(sweep.unfinished[0].clear(&scratch.store).unwrap_err().errno(), Some(Errno::PERM));
    assert!(scratch.store.sweep().unwrap().unfinished.is_empty(), "handed out with its lock");
    drop(sweep);
    assert!(set("-i"));
    scratch.sweep();
    assert_eq!((scratch.names("containers").len(), scratch.names("names").len()), (1, 1));
    drop(held);
}

#[test]
fn a_dead_supervisor_is_noticed() {
    let scratch = Scratch::new();
    let (_, dead) = scratch.run("dead", false);
    let (_, gone) = scratch.run("gone", true);
    let (ended, ending) = scratch.run("ended", true);
    let (stays, resting) = scratch.run("stays", false);
    let (_, _alive) = scratch.run("alive", true);
    let waiting = scratch.store.begin(chosen("waiting")).unwrap();
    let waits = Record { remove: true, ..record(&waiting) };
    drop(waiting.commit(&waits, None).unwrap());
    ended.record_exit(&ending, &exit(0)).unwrap();
    stays.record_exit(&resting, &exit(0)).unwrap();
    drop((dead, gone, ending, resting));

    assert_eq!(scratch.store.find("dead").unwrap().status().unwrap(), Status::Lost { started: 7 });
    let sweep = scratch.store.sweep().unwrap();
    assert!(sweep.failures.is_empty());
    let mut found: Vec<_> = sweep.orphans.iter().map(|orphan| (orphan.record.name.as_str(), orphan.fate)).collect();
    found.sort_by_key(|(name, _)| *name);
    assert_eq!(found, [("dead", Fate::MarkExited), ("ended", Fate::Remove), ("gone", Fate::Remove)]);
    // Handed out with their locks, they are nobody else's.
    assert!(scratch.store.sweep().unwrap().orphans.is_empty());
    for orphan in sweep.orphans {
        orphan.settle(&scratch.store, 99, ExitRecord::SUPERVISOR_LOST).unwrap();
    }
    let mut left = scratch.statuses();
    left.sort_by(|(one, _), (other, _)| one.cmp(other));
    let lost = ExitRecord {
        started: Some(7),
        finished: 99,
        code: 255,
        error: Some("its supervisor was killed".into()),
        ..ExitRecord::default()
    };
    assert_eq!(
        left,
        [
            ("alive".into(), Status::Running { started: Some(7), restarts: 0 }),
            ("dead".into(), Status::Exited(lost)),
            ("stays".into(), Status::Exited(exit(0))),
            ("waiting".into(), Status::Created),
        ]
    );
    assert!(scratch.store.sweep().unwrap().orphans.is_empty());
}

#[test]
fn creations_survive_sweeps_beside_them() {
    let scratch = Scratch::new();
    let done = AtomicBool::new(false);
    let held = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let store = Scratch::open(&scratch.directory);
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds == 0 {
                let sweep = store.sweep().unwrap();
                assert!(sweep.orphans.is_empty(), "nobody died");
                assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
                assert!(sweep.unfinished.is_empty());
                rounds += 1;
            }
        });
        let creators: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let store = Scratch::open(&scratch.directory);
                    let create = |number: u32| {
                        let draft = store.begin(Naming::MadeUp).unwrap();
                        draft.make_directories(&["root"]).unwrap();
                        if number.is_multiple_of(3) {
                            return None;
                        }
                        let record = record(&draft);
                        Some(draft.commit(&record, Some(1)).unwrap())
                    };
                    (0..60).filter_map(create).collect::<Vec<_>>()
                })
            })
            .collect();
        let held: Vec<_> = creators.into_iter().flat_map(|creator| creator.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        sweeper.join().unwrap();
        held
    });
    assert_eq!(held.len(), 160);
    assert_eq!((scratch.names("containers").len(), scratch.names("names").len()), (160, 160));
    assert!(held.iter().all(|(container, _)| container.record().is_ok()));
}

#[test]
fn renaming_moves_the_name() {
    let scratch = Scratch::new();
    let (web, _held) = scratch.run("web", false);
    let (_, _other) = scratch.run("other", false);
    assert_eq!(scratch.store.rename(&web, "other".parse().unwrap()).unwrap_err().kind(), Kind::Exists);
    assert_eq!(scratch.store.rename(&web, "web".parse().unwrap()).unwrap_err().kind(), Kind::Exists);
    scratch.store.rename(&web, "new".parse().unwrap()).unwrap();
    assert_eq!(scratch.names("names"), ["new", "other"]);
    assert_eq!(scratch.store.find("new").unwrap().record().unwrap().name.as_str(), "new");
}

#[test]
fn a_name_that_leads_nowhere_is_free() {
    let scratch = Scratch::new();
    let (web, held) = scratch.run("web", false);
    drop(held);
    fs::remove_dir_all(scratch.directory.path().join("containers").join(web.id.as_str())).unwrap();
    assert!(scratch.store.find("web").is_err());
    scratch.run("web", false);
}

#[test]
fn what_cannot_be_read_hides_nothing() {
    let scratch = Scratch::new();
    let (torn, _held) = scratch.run("torn", false);
    let (newer, _held) = scratch.run("newer", false);
    let (_, _held) = scratch.run("web", false);
    let folder = |container: &Container| scratch.directory.path().join("containers").join(container.id.as_str());
    fs::write(folder(&torn).join(RECORD), "{\"format\":1,").unwrap();
    fs::write(folder(&newer).join(RECORD), "{\"format\":2}").unwrap();
    fs::create_dir(scratch.directory.path().join("containers/lost+found")).unwrap();
    let listing = scratch.store.list().unwrap();
    assert_eq!(listing.containers.len(), 1);
    let mut reports: Vec<_> = listing.unreadable.iter().map(Error::report).collect();
    reports.sort_by_key(|report| report.contains("format"));
    assert!(reports[0].starts_with(&format!("container {}: record.json: EOF", torn.id.short())), "{reports:?}");
    assert!(reports[1].ends_with("record.json has format 2, this husk knows 1"), "{reports:?}");
}
