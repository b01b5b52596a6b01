<?php
// Receives the messages of a channel, one after the other, and prints them, one per line. Plain PHP, 7.4 to 8.x; it needs wsmb.php in the same directory.
//   WSMB_USER=gateway WSMB_PASSWORD=… php receive.php ws://127.0.0.1:8888 sms [COUNT]
// Put your own code into handle(). The script ends after COUNT deliveries; without COUNT it runs until you end it. It reconnects automatically.
//
// The script acknowledges a message after handle() has returned. If the script dies before, the broker delivers the message again, marked, to this or another
// receiver. handle() may take five minutes (`ack_timeout`) per message.

require __DIR__ . '/wsmb.php';

/**
 * Handles one message. $message: its JSON, as the sender wrote it. $again: whether it may have been handled before.
 * If this function throws an exception, the script gives the message back, and the broker delivers it again, each time after a longer wait.
 */
function handle(string $message, bool $again): void
{
    echo strtr($message, "\r\n", '  '), "\n";
}

[, $url, $channel, $count] = $argv + [1 => 'ws://127.0.0.1:8888', 2 => 'sms', 3 => PHP_INT_MAX];
for ($pause = 1; $count > 0; $pause = min(2 * $pause, 30)) {
    try {
        $broker = new Connection($url, 60); // The broker pings after 25 s of silence.
        // With "prefetch":1 a message waits in the broker, where other receivers can get it, and not here after a slow one.
        $broker->send('{"command":"receive-message","channel":' . json_encode(utf8($channel)) . ',"ack":"manual","prefetch":1}');
        while ($count > 0) {
            $frame = members($broker->receive());
            $pause = 1;
            if (isset($frame['response_code']) && $frame['response_code'] !== '"00"') {
                $reason = json_decode($frame['response_code']) . ' ' . json_decode($frame['response_text']);
                if ($frame['command'] === '"receive-message"') {
                    throw new Refused("refused: $reason");
                }
                fwrite(STDERR, "the broker says: $reason\n"); // The acknowledgement came too late.
            }
            if (!isset($frame['delivery'])) {
                continue;
            }
            $count--;
            $answer = 'ack';
            try {
                foreach ($frame['data'][0] === '[' ? members($frame['data']) : [$frame['data']] as $message) {
                    handle($message, ($frame['redelivered'] ?? '') === 'true');
                }
            } catch (Throwable $failure) {
                fwrite(STDERR, "a message is given back: {$failure->getMessage()}\n");
                $answer = 'nack';
            }
            $broker->send("{\"command\":\"$answer\",\"delivery\":{$frame['delivery']}}");
        }
        $broker->close();
    } catch (Refused $refused) {
        fail($refused->getMessage());
    } catch (Lost $lost) {
        fwrite(STDERR, "{$lost->getMessage()}; reconnecting\n");
        usleep(random_int(500000, 1000000) * $pause);
    }
}

/** Returns the members of a JSON object by name, or the elements of an array, each as its JSON text: json_decode() would change long numbers. */
function members(string $json): array
{
    $members = [];
    $json = trim($json);
    $depth = 0;
    $start = 1;
    $name = null;
    for ($at = 0; $at < strlen($json); $at++) {
        $at += strcspn($json, '"{}[],:', $at); // Only these characters can end a member.
        $sign = $json[$at] ?? '';
        if ($sign === '"') {
            do {
                $at++;
                $at += strcspn($json, '"\\', $at);
            } while ($json[$at] === '\\' && $at++);
        } elseif ($sign === '{' || $sign === '[') {
            $depth++;
        } elseif ($sign === '}' || $sign === ']') {
            $depth--;
        }
        $is_end = ($sign === ',' && $depth === 1) || (($sign === '}' || $sign === ']') && $depth === 0);
        if ($sign === ':' && $depth === 1) {
            $name = json_decode(substr($json, $start, $at - $start));
            $start = $at + 1;
        } elseif ($is_end && trim(substr($json, $start, $at - $start)) !== '') { // An empty list has no element.
            $members[$name ?? count($members)] = trim(substr($json, $start, $at - $start));
            $start = $at + 1;
        }
    }
    return $members;
}
