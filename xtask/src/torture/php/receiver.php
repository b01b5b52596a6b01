<?php
// receiver.php PORT CHANNEL NAME ROUTE LOG: receives for ever, as the scripts on cheap hosts do, and notes everything in LOG.
require __DIR__ . '/log.php';
require __DIR__ . '/../../../../tests/e2e/php/client.php';

[, $port, $channel, , $route, $log] = $argv;

/** The next message; a ping is answered with an empty pong from inside the read. Null at the end. */
function receive($stream, int $connection): ?string
{
    while (($frame = read_frame($stream)) !== null) {
        [$opcode, $payload] = $frame;
        if ($opcode !== 9) {
            return $payload;
        }
        if ($payload) {
            note('confirm', ['conn' => $connection]);
            @send_frame($stream, 10, '');
        }
    }
    return null;
}

/** One connection, to its end. */
function live($stream, int $connection): void
{
    global $channel, $route;
    // A quiet channel is no end of the connection.
    stream_set_timeout($stream, 3600);
    note('open', ['conn' => $connection, 'ch' => $channel, 'what' => 'legacy', 'how' => $route]);
    if (receive($stream, $connection) === null) {
        return;
    }
    @send_frame($stream, 2, json_encode(['command' => 'receive-message', 'channel' => $channel, 'data' => []]));
    for ($frame = 1; ($message = receive($stream, $connection)) !== null; $frame++) {
        $items = json_decode($message, true)['data'] ?? [];
        // All at once: a script that is killed here has read the whole frame.
        foreach ($items as $item) {
            note('got', ['conn' => $connection, 'm' => $item['m'], 'ch' => $channel, 'frame' => $frame]);
        }
        usleep(random_int(0, 3000) * count($items));
    }
}

for ($connection = 1; ; $connection++) {
    $stream = null;
    try {
        $stream = try_connect((int) $port, '/');
        if ($stream !== null) {
            live($stream, $connection);
        }
    } catch (RuntimeException) {
        // Noted, if it has to be.
    }
    if ($stream !== null) {
        note('end', ['conn' => $connection, 'what' => 'lost']);
        fclose($stream);
    }
    usleep(random_int(50000, 300000));
}
