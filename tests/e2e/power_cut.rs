//! A power cut at any point of a run loses no accepted message of the embedded store. (`tests/store_faults/power_cut.rs` tests the journal of a database.)

use faulty_disk::Fault;

use crate::broker::{Broker, Setup};
use crate::power::{Cuts, Machine, Seen, until_accepted};

fn setup() -> Setup {
    // The broker creates the directory, so its name must survive too.
    Setup::default().database("new/data/wsmb.db")
}

/// The run: a start, an orderly stop, a kill, a disk that refuses to sync for a while, and another kill.
fn run(machine: &Machine) -> Seen {
    let mut seen = Seen::default();
    machine.load(machine.start(&setup()), "live", &mut seen, |mut broker, accepted| {
        until_accepted(accepted, 600);
        assert!(broker.stop().success(), "{}", broker.log().tail());
    });
    machine.load(machine.start(&setup()), "live", &mut seen, |mut broker, accepted| {
        until_accepted(accepted, 600);
        broker.kill();
    });
    machine.load(machine.start(&setup()), "live", &mut seen, |mut broker, accepted| {
        until_accepted(accepted, 300);
        for _ in 0..3 {
            machine.shim.fail(Fault::Sync(libc::EIO)).expect("an error");
            broker.wait_for_log("the device that holds it fails");
            machine.shim.fail(Fault::None).expect("no error");
            until_accepted(accepted, 300);
        }
        broker.kill();
    });
    assert!(seen.received.len() > 100, "the receiver received {}", seen.received.len());
    seen
}

#[test]
fn a_power_cut_loses_nothing_that_was_accepted() {
    let machine = Machine::new();
    let seen = run(&machine);
    machine.cut(&seen, Cuts::of(24), 2, |directory| Broker::start_in(setup(), directory.clone(), 0));
}
