<?php
// The client of openapi-generator's php.
use OpenAPI\Client\Api\TodoApi;
use OpenAPI\Client\ApiException;
use OpenAPI\Client\Configuration;
use OpenAPI\Client\Model\TodoCreateTask;
use OpenAPI\Client\Model\TodoRegister;
use OpenAPI\Client\Model\TodoUpdateTask;

require '/usr/share/php/GuzzleHttp/autoload.php';
spl_autoload_register(function (string $class): void {
    $file = __DIR__ . '/php/lib/' . str_replace(['OpenAPI\\Client\\', '\\'], ['', '/'], $class) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

function failure(callable $request): array
{
    try {
        $request();
    } catch (ApiException $error) {
        $body = $error->getResponseObject();
        $fields = array_map(fn ($detail) => $detail->getField(), $body->getDetails() ?? []);
        return [$error->getCode(), $body->getError(), ...$fields];
    }
    throw new Exception('no failure');
}

$titles = fn ($list) => array_map(fn ($task) => $task->getTitle(), $list->getTasks());
$configuration = (new Configuration())->setHost(getenv('API_URL'))->setAccessToken('x');
$api = new TodoApi(null, $configuration);

$unauthorized = failure(fn () => $api->listTasks());
$email = bin2hex(random_bytes(8)) . '@example.com';
$session = $api->signUp(new TodoRegister(['email' => $email, 'password' => 'correct horse']));
$configuration->setAccessToken($session->getToken());

[$response, , $headers] = $api->createTaskWithHttpInfo(new TodoCreateTask(['title' => 'Buy milk']));
$task = $response->getTask();
[$etag] = array_change_key_case($headers)['etag'];
$api->createTask(new TodoCreateTask(['title' => 'Read', 'description' => 'Slowly']));
$all = $api->listTasks();
$page = $api->listTasks(2, 1);
$changes = new TodoUpdateTask(['description' => '2 l', 'completed' => true]);
$updated = $api->updateTask($task->getId(), $changes, $etag)->getTask();
$stale = failure(fn () => $api->updateTask($task->getId(), $changes, $etag));
$invalid = failure(fn () => $api->createTask(new TodoCreateTask(['title' => ' '])));
[, $deleted] = $api->deleteTaskWithHttpInfo($task->getId());
$gone = failure(fn () => $api->getTask($task->getId()));

echo json_encode([
    'signedUp' => $session->getUser()->getEmail() === $email,
    'created' => [$task->getTitle(), $task->getDescription(), $task->getCompleted()],
    'all' => [$titles($all), $all->getPagination()],
    'page' => [$titles($page), $page->getPagination()->getPage(), $page->getPagination()->getPages()],
    'updated' => [$updated->getTitle(), $updated->getDescription(), $updated->getCompleted()],
    'newer' => $updated->getUpdatedAt() > $task->getUpdatedAt(),
    'stale' => $stale,
    'invalid' => $invalid,
    'unauthorized' => $unauthorized,
    'deleted' => $deleted,
    'gone' => $gone,
]);
