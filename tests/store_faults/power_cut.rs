//! A power cut at any point of a run loses no accepted message in the journal of a database that is away. The durability of the database itself is not tested.

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
        // Rows that an earlier broker has moved to the database would hide a loss.
        server.sql_in(Some(&database), "DELETE FROM mq_data");
        Broker::start_in(setup.clone(), directory.clone(), 0)
    });
}
