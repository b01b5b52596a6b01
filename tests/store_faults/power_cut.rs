//! A power cut at any place of a run loses nothing that was accepted: the journal of a database that is away. What the database itself keeps is its own promise.

use crate::broker::{Broker, Setup};
use crate::power::{Cuts, Machine, Seen, until_accepted};
use crate::servers::{Kind, Server};

#[test]
fn a_power_cut_while_the_database_is_away_loses_nothing_that_was_accepted() {
    let server = Server::start(Kind::MariaDb);
    let database = server.database();
    let setup = Setup::default().url(&database.url_with_password());
    let (machine, mut seen) = (Machine::new(), Seen::default());
    machine.load(machine.start(&setup), "live", &mut seen, |mut broker, accepted| {
        server.kill_hard();
        until_accepted(accepted, 600);
        assert!(broker.stop().success(), "{}", broker.log().tail());
    });
    machine.load(machine.start(&setup), "live", &mut seen, |mut broker, accepted| {
        until_accepted(accepted, 600);
        broker.kill();
    });
    server.start_again();
    machine.cut(&seen, Cuts::of(12), 1, |directory| {
        // What the broker after the last cut has moved there would hide what is lost now.
        server.sql_in(Some(&database), "DELETE FROM mq_data");
        Broker::start_in(setup.clone(), directory.clone(), 0)
    });
}
