<?php
// sender.php PORT CHANNEL NAME ROUTE LOG: sends for ever, each message on a connection of its own: connect, connect reply, one frame, gone.
require __DIR__ . '/log.php';
require __DIR__ . '/../../../../tests/e2e/php/client.php';

[, $port, $channel, $name, $route, $log] = $argv;

for ($number = 1; ; $number++) {
    try {
        $stream = try_connect((int) $port, '/');
        if ($stream !== null && read_message($stream) !== null) {
            $message = ['m' => "$name-$number", 'pad' => str_repeat('x', random_int(0, 300))];
            $envelope = ['command' => 'send-message', 'channel' => $channel, 'data' => [$message]];
            note('send', ['conn' => $number, 'm' => $message['m'], 'ch' => $channel, 'how' => $route]);
            send_frame($stream, 2, json_encode($envelope));
            fclose($stream);
            note('gone', ['conn' => $number, 'what' => 'fin']);
        }
    } catch (RuntimeException) {
        // Noted, if it has to be.
    }
    unset($stream);
    usleep(random_int(10000, 150000));
}
