<?php
// receiver.php PORT CHANNEL COUNT: receives and prints one message a line; reconnects when the broker goes away. After COUNT messages
// it waits for the ping that confirms them, and leaves.
require __DIR__ . '/client.php';

/** Connects as soon as the broker is there. */
function reconnect(int $port)
{
    for ($attempt = 0; $attempt < 100 && !($probe = @stream_socket_client("tcp://127.0.0.1:$port")); $attempt++) {
        usleep(100000);
    }
    unset($probe);
    return connect($port, '/');
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
