<?php
// receiver.php PORT CHANNEL COUNT: receives messages and prints one on each line; reconnects when the connection ends. After COUNT messages
// it answers the ping that confirms them, and ends.
require __DIR__ . '/client.php';

/** Connects as soon as the broker listens; waits for 200 ms between attempts. */
function reconnect(int $port)
{
    for ($try = 0; $try < 100; $try++) {
        $stream = try_connect($port, '/');
        if ($stream !== null) {
            return $stream;
        }
        usleep(200000);
    }
    fail('no broker');
}

[, $port, $channel, $count] = $argv;
$seen = 0;
while ($seen < (int) $count) {
    $stream = reconnect((int) $port);
    read_message($stream) ?? fail('no connect reply');
    send_frame($stream, 2, json_encode(['command' => 'receive-message', 'channel' => $channel, 'data' => []]));
    while ($seen < (int) $count && ($message = read_message($stream)) !== null) {
        foreach (json_decode($message, true)['data'] as $item) {
            echo json_encode($item), "\n";
            $seen++;
        }
    }
}
do {
    $frame = read_frame($stream) ?? fail('the end instead of a ping');
} while ($frame[0] !== 9);
send_frame($stream, 10, '');
