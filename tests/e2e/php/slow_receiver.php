<?php
// slow_receiver.php PORT CHANNEL: receives messages, prints each, and waits for a line on standard input before it reads the next.
require __DIR__ . '/client.php';

[, $port, $channel] = $argv;
$stream = connect((int) $port, '/');
read_message($stream) ?? fail('no connect reply');
send_frame($stream, 2, json_encode(['command' => 'receive-message', 'channel' => $channel, 'data' => []]));
while (($message = read_message($stream)) !== null) {
    foreach (json_decode($message, true)['data'] as $item) {
        echo json_encode($item), "\n";
        fgets(STDIN) === false && exit(0);
    }
}
